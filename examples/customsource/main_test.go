package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

func TestTickerPublishesTheTimeUntilItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		var got []string
		pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
			for _, m := range msgs {
				got = append(got, string(m.Data))
			}
			if len(got) == 3 {
				cancel(enough)
			}
			return nil
		})
		began := time.Now()
		if err := Ticker(time.Minute).Run(ctx, pub); err != enough {
			t.Errorf("Run returned %v", err)
		}
		for i, s := range got {
			if want := began.Add(time.Duration(i+1) * time.Minute).Format(time.RFC3339); s != want {
				t.Errorf("tick %d is %s, want %s", i, s, want)
			}
		}
	})
}

func TestSourcesKeepTheirContracts(t *testing.T) {
	newJournal := func(testing.TB) *Journal {
		j := NewJournal("journal")
		for n := range 5 {
			j.Append(fmt.Sprint(n))
		}
		return j
	}
	tailcasttest.TestSource(t, newJournal, tailcasttest.Messages(5), tailcasttest.Bubble())
	tailcasttest.TestReplayer(t, newJournal, func(_ testing.TB, j *Journal) { j.Append("more") },
		tailcasttest.Messages(5), tailcasttest.Bubble())

	newTicker := func(testing.TB) Ticker { return Ticker(time.Second) }
	tailcasttest.TestSource(t, newTicker, tailcasttest.Unrepeatable(), tailcasttest.Bubble())
}

func TestJournalGoesOnWhereItsPublisherFailed(t *testing.T) {
	j := NewJournal("")
	for n := range 4 {
		j.Append(fmt.Sprint(n))
	}
	ctx, cancel := context.WithCancel(t.Context())
	refusal := errors.New("not now")
	var got []string
	pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		if len(got) == 2 && ctx.Value(again{}) == nil {
			return refusal
		}
		got = append(got, string(msgs[0].Data))
		if len(got) == 4 {
			cancel()
		}
		return nil
	})
	if err := j.Run(ctx, pub); err != refusal {
		t.Fatalf("the first Run returned %v", err)
	}
	ctx = context.WithValue(ctx, again{}, true)
	if err := j.Run(ctx, pub); err != context.Canceled {
		t.Fatalf("the second Run returned %v", err)
	}
	if s := strings.Join(got, " "); s != "0 1 2 3" {
		t.Fatalf("got %s", s)
	}
}

type again struct{}

func TestJournalReplaysAfterEachPosition(t *testing.T) {
	j := NewJournal("")
	j.Append("a")
	j.Append("b")
	j.Append("c")
	for name, test := range map[string]struct {
		after tailcast.Position
		want  string
	}{
		"earliest":   {tailcast.Earliest(), "a"},
		"the first":  {tailcast.Position{Epoch: j.epoch, Offset: 1}, "b"},
		"the second": {tailcast.Position{Epoch: j.epoch, Offset: 2}, "c"},
	} {
		t.Run(name, func(t *testing.T) {
			for msg, err := range j.Replay(t.Context(), "", test.after) {
				if string(msg.Data) != test.want || err != nil {
					t.Fatalf("got %q, %v", msg.Data, err)
				}
				break
			}
		})
	}
	for _, p := range []tailcast.Position{{Epoch: j.epoch + 2, Offset: 1}, {Epoch: j.epoch, Offset: 4}} {
		n := 0
		for _, err := range j.Replay(t.Context(), "", p) {
			if n++; n > 1 || !errors.Is(err, tailcast.ErrUnknownPosition) {
				t.Fatalf("%+v: %v", p, err)
			}
		}
	}
}

func TestViewerGetsFromTheJournalWhatTheHubHasForgotten(t *testing.T) {
	const total = 500
	j := NewJournal("journal")
	for n := range total {
		j.Append(fmt.Sprint(n))
	}
	hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 10}))
	srv := httptest.NewServer(hub.Handler("journal"))
	defer srv.Close()
	defer hub.Close()
	go hub.Run(t.Context(), j)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"?since=earliest", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for n := range total + 3 {
		if n >= total {
			j.Append(fmt.Sprint(n)) // live, once it has caught up
		}
		if !lines.Scan() || lines.Text() != fmt.Sprint(n) {
			t.Fatalf("line %d is %q, %v", n, lines.Text(), lines.Err())
		}
	}
}
