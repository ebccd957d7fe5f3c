module github.com/tailcast/tailcast

go 1.25.0

require (
	github.com/fsnotify/fsnotify v1.10.1
	github.com/nxadm/tail v1.4.11
	golang.org/x/sys v0.38.0
	nhooyr.io/websocket v1.8.17
)
