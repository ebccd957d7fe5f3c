package fanout_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/testnet"
)

// keyUpdate is the first record after the handshake of a client of TLS 1.3 with AES-128: new keys, for the server too (RFC 8446, 4.6.3).
func keyUpdate(t *testing.T, keyLog string) []byte {
	t.Helper()
	var secret []byte
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	expand := func(label string, n int) []byte {
		label = "tls13 " + label
		out, err := hkdf.Expand(sha256.New, secret, "\x00"+string(rune(n))+string(rune(len(label)))+label+"\x00", n)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("\x18\x00\x00\x01\x01" + "\x16") // update_requested, in a handshake record
	head := []byte{0x17, 3, 3, 0, byte(len(plain) + aead.Overhead())}
	return aead.Seal(head, expand("iv", 12), plain, head)
}

// A roomyConn is a connection in memory that says how much room it has.
type roomyConn struct{ *testnet.Conn }

func (roomyConn) Room() int { return 64 << 10 }

// TestAPeerOfTLSMayWantNewKeys at any time: it is answered by whoever reads, for whom no time is set.
func TestAPeerOfTLSMayWantNewKeys(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil) // for its certificate
	srv.StartTLS()
	config := srv.TLS.Clone()
	config.NextProtos = nil
	srv.Close()
	for name, write := range map[string]func(s fanout.Socket, p []byte) (int, error){
		"by a worker":    func(s fanout.Socket, p []byte) (int, error) { return s.TryWrite(p) },
		"by a goroutine": func(s fanout.Socket, p []byte) (int, error) { return s.WriteSome(p, 10*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := testnet.Listen()
				defer l.Close()
				c, err := l.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				accepted, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer accepted.Close()
				var keys bytes.Buffer
				client := tls.Client(c, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys})
				server := tls.Server(roomyConn{accepted.(*testnet.Conn)}, config)
				go server.Handshake()
				if err := client.Handshake(); err != nil {
					t.Fatal(err)
				}
				if suite := client.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
					t.Skip("the cipher is " + tls.CipherSuiteName(suite))
				}
				s, _ := fanout.NewSocket(server)
				for _, m := range []string{"before", "after"} {
					if n, err := write(s, []byte(m)); n != len(m) || err != nil {
						t.Fatalf("%q: %d, %v", m, n, err)
					}
					expect(t, client, m)
					if m == "after" {
						break
					}
					time.Sleep(time.Minute)
					go server.Read(make([]byte, 1))
					if _, err := c.Write(keyUpdate(t, keys.String())); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
			})
		})
	}
}
