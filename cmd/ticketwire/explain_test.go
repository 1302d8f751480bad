package main

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ticketwire/ticketwire/webhook"
)

const (
	ourSecret   = "q3vXy0mC4h_kJ8s-2tLrPz7wN1bVfGdE5aQuRiOoYxA"
	theirSecret = "Zk1xw9RrT0bC-ePq7sUuVv3yHh5jLl_8mNn2oDdFfGg"
)

// wire is a body as the service sends it: compact, in the contract's order, with
// characters that libraries write differently.
func wire(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "webhook", "testdata", "payloads", "ticket.comment.added.with-thread.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(b.Bytes(), []byte("Obrigada!"), []byte(`Obrigada! <a href=\"https://x/y\"> +1 'ok' ✅ \u0007`), 1)
}

var explainNow = time.Unix(1_790_000_000, 0)

func hmacHex(h func() hash.Hash, key string, message ...string) string {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(strings.Join(message, "")))
	return hex.EncodeToString(m.Sum(nil))
}

// mistake is one that was really made: the signature and the body are those that
// a receiver with it would look at.
type mistake struct {
	name  string
	want  string // the first cause
	says  string // in its detail
	spoil func(r *received)
}

// resign signs the body with another secret or over other bytes.
func resign(secret string, body func(sent []byte) []byte) func(*received) {
	return func(r *received) { r.signature = []string{webhook.Sign(secret, explainNow, body(r.body))} }
}

func asIs(b []byte) []byte { return b }

// rewrite changes the body after it was signed.
func rewrite(f func(sent []byte) []byte) func(*received) {
	return func(r *received) { r.body = f(r.body) }
}

// header changes the header after it was made.
func reheader(f func(sent string) []string) func(*received) {
	return func(r *received) { r.signature = f(r.signature[0]) }
}

// decoded parses a body as a program would, into maps.
func decoded(b []byte) any {
	var v any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		panic(err)
	}
	return v
}

func indentedBy(by string) func([]byte) []byte {
	return func(b []byte) []byte {
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", by); err != nil {
			panic(err)
		}
		return out.Bytes()
	}
}

func mistakes() []mistake {
	last := func(s string, n int) string { return s[len(s)-n:] }
	return slices.Concat(bodyMistakes(), secretMistakes(), []mistake{
		{"old", "timestamp_old", "3h12m0s old", func(r *received) { r.now = r.now.Add(3*time.Hour + 12*time.Minute) }},
		{"clock in local time", "timestamp_old", "half hours", func(r *received) { r.now = r.now.Add(2 * time.Hour) }},
		{"clock behind", "timestamp_future", "7m0s ahead", func(r *received) { r.now = r.now.Add(-7 * time.Minute) }},
		{"milliseconds sent and signed", "timestamp_milliseconds", "header is in milliseconds", func(r *received) {
			ms := fmt.Sprint(explainNow.UnixMilli() + 7)
			r.signature = []string{"t=" + ms + ",v1=" + hmacHex(sha256.New, r.secret, ms, ".", string(r.body))}
		}},
		{"milliseconds sent, seconds signed", "timestamp_milliseconds", "header is in milliseconds", func(r *received) {
			r.signature[0] = strings.Replace(r.signature[0], ",", "123,", 1)
		}},
		{"seconds sent, milliseconds signed", "timestamp_milliseconds", "over milliseconds", func(r *received) {
			r.signature = []string{fmt.Sprintf("t=%d,v1=%s", explainNow.Unix(), hmacHex(sha256.New, r.secret, fmt.Sprint(explainNow.UnixMilli()+456), ".", string(r.body)))}
		}},
		{"date", "timestamp_form", "is a date", func(r *received) {
			r.signature[0] = strings.Replace(r.signature[0], fmt.Sprint(explainNow.Unix()), explainNow.UTC().Format(time.RFC3339), 1)
		}},

		{"keys in upper case", "header_upper_case", "keys", reheader(func(s string) []string { return []string{strings.ToUpper(s)} })},
		{"quotes", "header_quoted", "quotes", reheader(func(s string) []string { return []string{`"` + s + `"`} })},
		{"name inside", "header_name_inside", "name", reheader(func(s string) []string { return []string{"X-Alga-Signature: " + s} })},
		{"percent-encoded", "header_escaped", "percent", reheader(func(s string) []string { return []string{url.QueryEscape(s)} })},
		{"semicolon", "header_separator", "semicolons", reheader(func(s string) []string { return []string{strings.ReplaceAll(s, ",", ";")} })},
		{"wrapped in its digits", "header_split", "2 lines", reheader(func(s string) []string { return []string{s[:40], s[40:]} })},
		{"wrapped with a space", "header_spaces", "spaces", reheader(func(s string) []string { return []string{s[:40] + " " + s[40:]} })},
		{"sent twice", "header_split", "2 lines", reheader(func(s string) []string { return []string{s, s} })},
		{"joined twice", "header_duplicated", "2 times", reheader(func(s string) []string { return []string{s + ", " + s} })},
		{"only the time", "header_cut", "no signature", reheader(func(s string) []string { return strings.SplitN(s, ",", 2)[:1] })},
		{"only the signature", "header_cut", "no time", reheader(func(s string) []string { return strings.SplitN(s, ",", 2)[1:] })},
		{"digits cut off", "header_cut", "30 hex digits", reheader(func(s string) []string { return []string{s[:len(s)-34]} })},
		{"dropped", "header_missing", "no signature", reheader(func(string) []string { return nil })},
		{"base64", "header_base64", "base64", reheader(func(s string) []string {
			sum, _ := hex.DecodeString(last(s, 64))
			return []string{s[:len(s)-64] + base64.StdEncoding.EncodeToString(sum)}
		})},
		{"base64 of the hex", "header_base64", "base64", reheader(func(s string) []string {
			return []string{s[:len(s)-64] + base64.RawURLEncoding.EncodeToString([]byte(last(s, 64)))}
		})},
		{"GitHub's", "header_scheme", "sha256=", func(r *received) {
			r.signature = []string{"sha256=" + hmacHex(sha256.New, r.secret, string(r.body))}
		}},

		{"SHA-1", "algorithm", "HMAC-SHA-1;", func(r *received) { r.signature = schemeHeader(hmacHex(sha1.New, r.secret, signed(r))) }},
		{"SHA-512", "algorithm", "HMAC-SHA-512;", func(r *received) { r.signature = schemeHeader(hmacHex(sha512.New, r.secret, signed(r))) }},
		{"MD5", "algorithm", "HMAC-MD5;", func(r *received) { r.signature = schemeHeader(hmacHex(md5.New, r.secret, signed(r))) }},
		{"SHA-512 of another secret", "algorithm", "128 hex digits, as SHA-512", func(r *received) { r.signature = schemeHeader(hmacHex(sha512.New, theirSecret, signed(r))) }},
		{"SHA-1 of the body", "algorithm", "body alone", func(r *received) { r.signature = schemeHeader(hmacHex(sha1.New, r.secret, string(r.body))) }},
		{"body alone", "scheme", "body alone", func(r *received) { r.signature = schemeHeader(hmacHex(sha256.New, r.secret, string(r.body))) }},
		{"no full stop", "scheme", "nothing instead", func(r *received) {
			r.signature = schemeHeader(hmacHex(sha256.New, r.secret, strings.Replace(signed(r), ".", "", 1)))
		}},
		{"t= signed", "scheme", "t=", func(r *received) { r.signature = schemeHeader(hmacHex(sha256.New, r.secret, "t=", signed(r))) }},
		{"Slack's", "scheme", "Slack", func(r *received) {
			r.signature = schemeHeader(hmacHex(sha256.New, r.secret, "v0:", strings.Replace(signed(r), ".", ":", 1)))
		}},
		{"swapped", "scheme", "changed places", func(r *received) { r.signature = schemeHeader(hmacHex(sha256.New, signed(r), r.secret)) }},
		{"plain hash", "scheme", "plain SHA-256", func(r *received) {
			sum := sha256.Sum256([]byte(r.secret + signed(r)))
			r.signature = schemeHeader(hex.EncodeToString(sum[:]))
		}},
		{"Standard Webhooks", "scheme", "Standard Webhooks", func(r *received) {
			r.header = http.Header{webhook.EventIDHeader: {"4f0c2f5e"}}
			r.signature = schemeHeader(hmacHex(sha256.New, r.secret, "4f0c2f5e.", signed(r)))
		}},
	})
}

func signed(r *received) string { return fmt.Sprintf("%d.%s", explainNow.Unix(), r.body) }

func schemeHeader(digits string) []string {
	return []string{fmt.Sprintf("t=%d,v1=%s", explainNow.Unix(), digits)}
}

func bodyMistakes() []mistake {
	return []mistake{
		{"pretty", "body_reserialised", "compact JSON.", rewrite(indentedBy("  "))},
		{"pretty, then a line break", "body_reserialised", "compact JSON.", rewrite(func(b []byte) []byte { return append(indentedBy("\t")(b), '\n') })},
		{"signed pretty, sent compact", "body_reserialised", "indented by 4 spaces.", resign(ourSecret, indentedBy("    "))},
		{"signed by Python", "body_reserialised", "json.dumps), with \\u-escapes", resign(ourSecret, func(b []byte) []byte { return spaced(asciiJSON(b, "\\u%04x")) })},
		{"keys sorted by the receiver", "body_reserialised", "order of the contract", rewrite(func(b []byte) []byte { return plainJSON(decoded(b)) })},
		{"maps in Go", "body_reserialised", "order of the contract", rewrite(func(b []byte) []byte {
			out, err := json.Marshal(decoded(b))
			if err != nil {
				panic(err)
			}
			return out
		})},
		{"keys sorted by the sender", "body_reserialised", "keys sorted", resign(ourSecret, func(b []byte) []byte { return plainJSON(decoded(b)) })},
		{"escaped by the receiver", "body_reserialised", "without \\u-escapes", rewrite(func(b []byte) []byte { return asciiJSON(b, "\\u%04x") })},
		{"escaped by PHP", "body_reserialised", "without \\u-escapes", rewrite(func(b []byte) []byte {
			return bytes.ReplaceAll(asciiJSON(b, "\\u%04x"), []byte("/"), []byte(`\/`))
		})},
		{"line break added", "body_line_break", "without the line break", rewrite(func(b []byte) []byte { return append(b, '\n') })},
		{"line break dropped", "body_line_break", "with a line break", resign(ourSecret, func(b []byte) []byte { return append(slices.Clone(b), '\n') })},
		{"CRLF for LF", "body_line_break", "LF where this one has CRLF", func(r *received) {
			r.body = indentedBy("  ")(r.body)
			resign(ourSecret, asIs)(r)
			r.body = bytes.ReplaceAll(r.body, []byte("\n"), []byte("\r\n"))
		}},
		{"LF for CRLF", "body_line_break", "CRLF where this one has LF", func(r *received) {
			r.body = indentedBy("  ")(r.body)
			resign(ourSecret, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) })(r)
		}},
		{"BOM added", "body_bom", "without the byte order mark", rewrite(func(b []byte) []byte { return append([]byte("\xEF\xBB\xBF"), b...) })},
		{"BOM dropped", "body_bom", "with a byte order mark", resign(ourSecret, func(b []byte) []byte { return append([]byte("\xEF\xBB\xBF"), b...) })},
		{"form field", "body_form_encoded", `form field "payload"`, rewrite(func(b []byte) []byte {
			return []byte(url.Values{"payload": {string(b)}}.Encode())
		})},
		{"read as a form", "body_form_encoded", "without the form encoding", rewrite(func(b []byte) []byte {
			return []byte(url.Values{string(b): {""}}.Encode())
		})},
		{"sent as a form", "body_form_encoded", "form field payload", resign(ourSecret, func(b []byte) []byte {
			return []byte(url.Values{"payload": {string(b)}}.Encode())
		})},
		{"base64 of a gateway", "body_base64", "decoded from base64", rewrite(func(b []byte) []byte {
			return []byte(base64.StdEncoding.EncodeToString(b))
		})},
		{"encoded twice", "body_encoded_twice", "inside the JSON string", rewrite(func(b []byte) []byte { return plainJSON(string(b)) })},
		{"compressed", "body_compressed", "gzip", rewrite(func(b []byte) []byte {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			z.Write(b)
			z.Close()
			return out.Bytes()
		})},
		{"read as Latin-1", "body_charset", "Latin-1", rewrite(func(b []byte) []byte {
			var out []rune
			for _, c := range b {
				out = append(out, rune(c))
			}
			return []byte(string(out))
		})},
		{"emptied by a middleware", "body_empty", "empty", rewrite(func([]byte) []byte { return nil })},
		{"altered", "wrong_secret", "body was altered", rewrite(func(b []byte) []byte { return bytes.Replace(b, []byte("Inês"), []byte("Ines"), 1) })},
		{"pretty, and signed with a line break", "secret_whitespace", "line break", func(r *received) {
			resign(ourSecret+"\n", asIs)(r)
			r.body = indentedBy("  ")(r.body)
		}},
	}
}

func secretMistakes() []mistake {
	raw, err := base64.RawURLEncoding.DecodeString(ourSecret)
	if err != nil {
		panic(err)
	}
	given := func(s string) func(*received) { return func(r *received) { r.secret = s } }
	return []mistake{
		{"wrong", "wrong_secret", "another secret", resign(theirSecret, asIs)},
		{"wrong, and not ours to begin with", "wrong_secret", "has 7 characters", func(r *received) { r.secret = "changed" }},
		{"line break in the file", "secret_whitespace", "without", given(ourSecret + "\n")},
		{"spaces around", "secret_whitespace", "without", given(" " + ourSecret + "\t")},
		{"signed with a line break", "secret_whitespace", "line break at its end", resign(ourSecret+"\n", asIs)},
		{"signed with a CRLF", "secret_whitespace", "CRLF", resign(ourSecret+"\r\n", asIs)},
		{"signed with a space", "secret_whitespace", "space at its end", resign(ourSecret+" ", asIs)},
		{"quotes around", "secret_quoted", "without", given(`"` + ourSecret + `"`)},
		{"signed with quotes", "secret_quoted", "quotes around it", resign("'"+ourSecret+"'", asIs)},
		{"line of an .env file", "secret_assignment", "NAME=value", given("WEBHOOK_SECRET=" + ourSecret)},
		{"byte order mark", "secret_bom", "byte order mark", given("\uFEFF" + ourSecret)},
		{"prefix", "secret_prefix", "whsec_", given("whsec_" + ourSecret)},
		{"decoded by the sender", "secret_decoded", "base64", resign(string(raw), asIs)},
		{"decoded by the receiver", "secret_encoded", "base64", given(string(raw))},
		{"hex decoded", "secret_decoded", "hex", func(r *received) {
			r.secret = hex.EncodeToString([]byte("a key of 16 byte"))
			resign("a key of 16 byte", asIs)(r)
		}},
		{"the other half of a rotation", "other_secret", "number 2", func(r *received) {
			r.others = []string{"something else", theirSecret}
			resign(theirSecret, asIs)(r)
		}},
		{"neither half of a rotation", "wrong_secret", "two secrets", func(r *received) {
			r.signature = []string{webhook.SignRotating("older", theirSecret, explainNow, r.body)}
		}},
	}
}

// asciiJSON escapes what is not ASCII, without the code under test.
func asciiJSON(b []byte, form string) []byte {
	var out []byte
	for _, r := range string(b) {
		switch {
		case r > 0xffff:
			panic("the payload has no such character")
		case r > 0x7e:
			out = fmt.Appendf(out, form, r)
		default:
			out = append(out, byte(r))
		}
	}
	return out
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for _, tt := range mistakes() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := received{body: wire(t), secret: ourSecret, now: explainNow, tolerance: webhook.DefaultTolerance}
			r.signature = []string{webhook.Sign(ourSecret, explainNow, r.body)}
			tt.spoil(&r)
			v := explain(r)
			if v.Valid || v.Reason == webhook.Valid {
				t.Fatalf("a receiver would accept it: %+v", v)
			}
			if len(v.Causes) == 0 || v.Causes[0].Name != tt.want || !strings.Contains(v.Causes[0].Detail, tt.says) {
				t.Fatalf("causes are %+v, want first %s with %q", v.Causes, tt.want, tt.says)
			}
			for _, c := range append(v.Causes, v.Notes...) {
				if c.Fix == "" {
					t.Errorf("%s has no fix", c.Name)
				}
				if strings.Contains(c.Detail+c.Fix, ourSecret) || strings.Contains(c.Detail+c.Fix, theirSecret) {
					t.Errorf("%s tells a secret", c.Name)
				}
			}
		})
	}
}

// Each cause that can be named stands in the documentation.
func TestCausesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "developing.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mistakes() {
		name := m.want
		if strings.HasPrefix(name, "header_") {
			name = "header_..."
		}
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("docs/developing.md does not say what %s is", name)
		}
	}
}

// Two mistakes at once are both named.
func TestExplainTwoMistakes(t *testing.T) {
	t.Parallel()
	r := received{body: wire(t), secret: ourSecret + "\n", now: explainNow.Add(time.Hour), tolerance: webhook.DefaultTolerance}
	r.signature = []string{`"` + webhook.Sign(ourSecret, explainNow, r.body) + `"`}
	r.body = indentedBy("  ")(r.body)
	var got []string
	for _, c := range explain(r).Causes {
		got = append(got, c.Name)
	}
	if want := []string{"header_quoted", "secret_whitespace", "body_reserialised", "timestamp_old"}; !slices.Equal(got, want) {
		t.Errorf("causes are %v, want %v", got, want)
	}
}

// What we accept and others may not is a note.
func TestExplainNotes(t *testing.T) {
	t.Parallel()
	body := wire(t)
	plain := webhook.Sign(ourSecret, explainNow, body)
	for header, want := range map[string]string{
		strings.Replace(plain, ",", ", ", 1):                           "header_spaces",
		plain[:len(plain)-64] + strings.ToUpper(plain[len(plain)-64:]): "header_upper_case",
		webhook.SignRotating(theirSecret, ourSecret, explainNow, body): "rotation",
		plain: "",
	} {
		v := explain(received{signature: []string{header}, body: body, secret: ourSecret, now: explainNow, tolerance: webhook.DefaultTolerance})
		if !v.Valid || len(v.Causes) != 0 {
			t.Fatalf("%s: %+v", header, v)
		}
		got := ""
		if len(v.Notes) > 0 {
			got = v.Notes[0].Name
		}
		if got != want {
			t.Errorf("%s: note %q, want %q", header, got, want)
		}
	}
}

// A request that real HTTP carried, dumped, is judged like the bytes it had.
func TestParseRequest(t *testing.T) {
	t.Parallel()
	body := wire(t)
	dumped := make(chan []byte, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		dumped <- text
	}))
	defer srv.Close()
	send := func(body []byte, header http.Header, length int64) []byte {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/hook", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header, req.ContentLength = header, length
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return <-dumped
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(body)
	z.Close()
	full := send(body, http.Header{"X-A": {"1"}}, int64(len(body)))
	for name, tt := range map[string]struct {
		text []byte
		want []byte
		note string
	}{
		"as dumped":         {full, body, ""},
		"an editor's end":   {append(slices.Clone(full), '\n'), body, ""},
		"LF":                {bytes.ReplaceAll(full, []byte("\r\n"), []byte("\n")), body, ""},
		"chunked":           {send(body, http.Header{"X-A": {"1"}}, -1), body, ""},
		"cut":               {full[:len(full)-5], body[:len(body)-5], "body_cut"},
		"compressed":        {send(packed.Bytes(), http.Header{"X-A": {"1"}, "Content-Encoding": {"gzip"}}, int64(packed.Len())), body, "body_compressed"},
		"no content length": {append([]byte("POST /hook HTTP/2\nX-A: 1\n\n"), body...), body, ""},
	} {
		header, got, notes, err := parseRequest(tt.text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		note := ""
		if len(notes) > 0 {
			note = notes[0].Name
		}
		if header.Get("X-A") != "1" || string(got) != string(tt.want) || note != tt.note {
			t.Errorf("%s: header %v, %d bytes, note %q, want %d bytes and %q", name, header, len(got), note, len(tt.want), tt.note)
		}
	}
	for _, text := range []string{"", "\n", "X-A: 1\n\n{}", "POST / HTTP/1.1\nbroken\n\n{}"} {
		if _, _, _, err := parseRequest([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// Whatever is given to verify --explain, it answers.
func FuzzExplain(f *testing.F) {
	body := wire(f)
	f.Add(webhook.Sign(ourSecret, explainNow, body), body, ourSecret)
	f.Add("t=1,v1=é", []byte(`{"a":"\ud800","b":[1,{"c":"\\"}]}`), "x=")
	f.Add("v1=", []byte("a=%7B&b"), "\n")
	f.Fuzz(func(t *testing.T, header string, body []byte, secret string) {
		if len(body) > 4096 || secret == "" {
			return
		}
		v := explain(received{signature: []string{header}, body: body, secret: secret, now: explainNow, tolerance: webhook.DefaultTolerance})
		if v.Valid != (v.Reason == webhook.Valid) || !v.Valid && len(v.Causes) == 0 {
			t.Errorf("%+v", v)
		}
	})
}
