module github.com/tailcast/tailcast/bench

go 1.25.0

replace github.com/tailcast/tailcast => ../

require (
	github.com/lxzan/gws v1.8.9
	github.com/nxadm/tail v1.4.11
	github.com/tailcast/tailcast v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.38.0
)

require (
	github.com/dolthub/maphash v0.1.0 // indirect
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/klauspost/compress v1.17.9 // indirect
	gopkg.in/tomb.v1 v1.0.0-20141024135613-dd632973f1e7 // indirect
	nhooyr.io/websocket v1.8.17 // indirect
)
