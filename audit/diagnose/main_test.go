package diagnose

import (
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
