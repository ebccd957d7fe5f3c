module github.com/tailcast/tailcast/sources/amqp

go 1.25.0

replace github.com/tailcast/tailcast => ../../

require (
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/tailcast/tailcast v0.0.0-00010101000000-000000000000
)

require (
	github.com/fsnotify/fsnotify v1.10.1 // indirect
	github.com/nxadm/tail v1.4.11 // indirect
	golang.org/x/sys v0.38.0 // indirect
	nhooyr.io/websocket v1.8.17 // indirect
)
