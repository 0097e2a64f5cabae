package listeners

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// HostText is text that a process of the host chose (its name, its command
// line): any bytes, hostile, to be escaped where it is printed. JSON keeps the
// bytes: a string where they are valid UTF-8, {"base64": "…"} where not.
type HostText string

type rawText struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements [json.Marshaler] without losing bytes.
func (t HostText) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(rawText{[]byte(t)})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (t *HostText) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var raw rawText
		if err := json.Unmarshal(b, &raw); err != nil {
			return fmt.Errorf("decode host text: %w", err)
		}
		*t = HostText(raw.Base64)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("decode host text: %w", err)
	}
	*t = HostText(s)
	return nil
}
