// Package client follows a hub over HTTP from a Go program, and lets hubs relay hubs.
//
//	for msg, err := range client.Follow(ctx, "https://example.org/logs", client.WithTopics("app")) {
//		if err != nil {
//			return err
//		}
//		fmt.Printf("%s\n", msg.Data)
//	}
//
// # Resume
//
// A connection that ends, or says nothing for too long, is made again, with the position of the last message of each topic. So each
// message comes once, in the order of its topic, whatever happens to the network, to proxies and to the server's process, as long as
// the hub has in memory or can replay what was missed. What it no longer has comes as a Message with Gap, at its place.
//
// # What ends it
//
// An answer that would be the same again: a status of 4xx (but 408, 425 and 429), one that is no stream, a goodbye with a code from
// 4400 to 4499, which stand for the statuses 400 to 499. Everything else is tried again, after pauses that grow, with jitter, and are
// no shorter than what the server asks for (Retry-After, bye). WithLogger tells of it.
//
// # Relays
//
// Source makes a tailcast.Source of the same: a hub that runs it has the topics of another hub, with the same positions, and reads
// from that hub what its own memory no longer has. A viewer may come back to either of them.
package client
