// Package tailcasttest is for the tests of programs that use tailcast: of their own Sources and Replayers, and of what they have
// built around a hub.
//
//   - A Recorder is a Publisher that keeps what it is given, and can refuse it.
//   - TestSource and TestReplayer hold a Source to the contracts that stand at tailcast.Source and tailcast.Replayer. A check that
//     fails says which rule it is, what was expected, and what happened.
//   - Serve is an http.Server on a network in memory, with clients that speak the formats of a hub and can stall.
//
// All of it can be used inside a bubble of testing/synctest, where time is virtual: a minute of heartbeats takes no time, and a
// test that waits for nothing to happen knows when that is so.
//
// # Who owns the bytes
//
// The Data of a published message belongs to the Source. A Publisher copies it, and never writes into it: a Source that is a
// Replayer often publishes from its own memory. So a Recorder copies too, and the suites look whether Data stays as it is while
// Publish has not returned. Afterwards the Source may use the slices again. Data that Replay yields is valid until yield returns.
package tailcasttest
