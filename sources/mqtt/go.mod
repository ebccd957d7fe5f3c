module github.com/tailcast/tailcast/sources/mqtt

go 1.25.0

replace github.com/tailcast/tailcast => ../../

require (
	github.com/eclipse/paho.golang v0.23.0
	github.com/mochi-mqtt/server/v2 v2.7.9
	github.com/tailcast/tailcast v0.0.0-00010101000000-000000000000
	nhooyr.io/websocket v1.8.17
)

require (
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/nxadm/tail v1.4.11 // indirect
	github.com/rs/xid v1.4.0 // indirect
	golang.org/x/sys v0.38.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
