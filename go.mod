module github.com/tailcast/tailcast

go 1.25.0

require (
	github.com/fsnotify/fsnotify v1.10.1
	github.com/nxadm/tail v1.4.11
	golang.org/x/sys v0.38.0
	nhooyr.io/websocket v1.8.17
)

require gopkg.in/tomb.v1 v1.0.0-20141024135613-dd632973f1e7 // indirect
