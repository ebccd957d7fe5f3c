package fanout_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/testnet"
)

// keyUpdate is the record with which a client of TLS 1.3 that has said nothing yet asks for new keys: crypto/tls never does.
func keyUpdate(t *testing.T, keyLog string) []byte {
	t.Helper()
	var secret []byte
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	expand := func(label string, n int) []byte { // RFC 8446, 7.1
		label = "tls13 " + label
		out, err := hkdf.Expand(sha256.New, secret, string([]byte{0, byte(n), byte(len(label))})+label+"\x00", n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	const handshake, applicationData = 22, 23
	message := []byte{24, 0, 0, 1, 1, handshake}
	head := []byte{applicationData, 3, 3, 0, byte(len(message) + gcm.Overhead())}
	return gcm.Seal(head, expand("iv", 12), message, head)
}

// direct is what the kernel is under TLS that has room.
type direct struct{ *testnet.Conn }

func (direct) Room() int { return 1 << 20 }

// TestTLSAnswersAfterSilence: the deadline of a write is not there any more when TLS itself has something to say.
func TestTLSAnswersAfterSilence(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil) // for its certificate
	srv.StartTLS()
	config := srv.TLS.Clone()
	config.NextProtos = nil
	srv.Close()
	for name, below := range map[string]func(*testnet.Conn) net.Conn{
		"written by a worker":    func(nc *testnet.Conn) net.Conn { return direct{nc} },
		"written by a goroutine": func(nc *testnet.Conn) net.Conn { return nc },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var keys bytes.Buffer
				c, s := testnet.Pipe(64 << 10)
				client := tls.Client(c, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys})
				server := tls.Server(below(s), config)
				go client.Handshake()
				if err := server.Handshake(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
					t.Skip("no AES here")
				}
				read := make(chan struct{})
				go func() {
					io.Copy(io.Discard, server)
					close(read)
				}()
				w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
				sock, ofUse := fanout.NewSocket(server)
				conn := w.pool.Add(fanout.Options{
					Socket: sock, Direct: ofUse, Handler: handler{}, Abort: func() { server.Close() }, Failed: func(error) { c.Close() },
				})
				sub := w.subscribe(conn, "")
				w.publish("one")
				expect(t, client, "<1 one>")
				time.Sleep(time.Minute)
				if _, err := c.Write(keyUpdate(t, keys.String())); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				w.publish("two")
				got := make([]byte, 7)
				if _, err := io.ReadFull(client, got); err != nil || string(got) != "<2 two>" {
					t.Errorf("%q, %v; the writing side has ended with %v", got, err, conn.Err())
				}
				finish(conn, sub)
				w.pool.Close()
				server.Close()
				<-read
			})
		})
	}
}
