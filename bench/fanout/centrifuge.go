package main

import (
	"context"

	"github.com/centrifugal/centrifuge"
)

const (
	centrifugeChannel = "t"
	// centrifugeQueue is what may wait for a connection, in bytes, where all messages come at once: it closes a connection at 1 MiB.
	centrifugeQueue = 256 << 20
)

// centrifugeServer is a node with its broker in memory. Connections are subscribed to the channel by the server. Its protocol is
// JSON, which is its default: so a message is a JSON string, in an envelope.
type centrifugeServer struct {
	web
	node *centrifuge.Node
}

func newCentrifuge(s *spec) (server, error) {
	var c centrifuge.Config
	if s.burst() {
		c.ClientQueueMaxSize = centrifugeQueue
	}
	node, err := centrifuge.New(c)
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{centrifugeChannel: {}},
		}, nil
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	return &centrifugeServer{web{centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{})}, node}, nil
}

func (c *centrifugeServer) viewers() int { return c.node.Hub().NumSubscribers(centrifugeChannel) }

func (c *centrifugeServer) publish(_ uint8, m []byte) error {
	data := make([]byte, 0, len(m)+2)
	data = append(append(append(data, '"'), m...), '"')
	_, err := c.node.Publish(centrifugeChannel, data)
	return err
}
