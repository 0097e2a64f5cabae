// Package webserver reads what a running web server (nginx, Apache, HAProxy,
// Caddy) was configured to do with a request: whether a port speaks TLS, which
// virtual host and path answer, where they forward to, and whether a WebSocket
// upgrade gets through.
//
// Reading and answering are apart. Read opens files, below the root of the
// server's own process and never outside of it, bounded in number, size and
// time; it executes nothing. Config.Ask is pure. The readers know what these
// answers need of each language and no more: a condition that turns on something
// else makes an answer unsure, and a file that cannot be read or understood
// makes the whole configuration incomplete. Neither becomes a guess.
package webserver
