package main

import (
	"net/http"

	"github.com/olahol/melody"
)

// melodyServer is melody as its README has it.
type melodyServer struct {
	web
	*melody.Melody
}

func newMelody(s *spec) (server, error) {
	m := melody.New()
	if s.burst() { // it drops what finds a session's queue full, and has no way to wait
		m.Config.MessageBufferSize = s.Count
	}
	return &melodyServer{
		Melody: m,
		web:    web{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = m.HandleRequest(w, r) })},
	}, nil
}

func (m *melodyServer) viewers() int { return m.Len() }

func (m *melodyServer) publish(_ uint8, b []byte) error { return m.Broadcast(b) }
