package ticket

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDescriptionHTML(t *testing.T) {
	t.Parallel()
	tests := []struct{ attributes, want string }{
		{``, ""},
		{`null`, ""},
		{`{}`, ""},
		{`{"description":null}`, ""},
		{`{"description":7}`, ""},
		{`{"description":{"description":"x"}}`, ""},
		{`{"description":"  \n "}`, ""},
		{`{"description":"one"}`, "<p>one</p>"},
		{`{"description":"one\ntwo\r\n\r\n \nthree\n"}`, "<p>one<br>two</p><p>three</p>"},
		{`{"description":"<script>alert('&\"')</script>"}`, "<p>&lt;script&gt;alert(&#39;&amp;&#34;&#39;)&lt;/script&gt;</p>"},
		{`{"description":"one\n<two>"}`, "<p>one<br>&lt;two&gt;</p>"},
		{`{"description":"a\u0000b"}`, "<p>a\uFFFDb</p>"},
	}
	for _, tt := range tests {
		if got := DescriptionHTML(json.RawMessage(tt.attributes)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.attributes, got, tt.want)
		}
	}
}

// Whatever the text, the only tags in its rendering are those of RenderHTML.
func FuzzRenderHTML(f *testing.F) {
	for _, s := range []string{"", "a\n\nb", "<p>", "\x00", "a\r\nb", "a\n<b>", "&amp;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := RenderHTML(text)
		if strings.Count(got, "<p>") != strings.Count(got, "</p>") {
			t.Errorf("unbalanced: %q", got)
		}
		rest := strings.NewReplacer("<p>", "", "</p>", "", "<br>", "").Replace(got)
		if strings.ContainsAny(rest, "<>\"'\x00") {
			t.Errorf("not escaped: %q", got)
		}
	})
}

func TestSameJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want bool
	}{
		{``, `null`, true},
		{`{"a":1,"b":2}`, `{ "b": 2, "a": 1 }`, true},
		{`{"a":1}`, `{"a":1,"b":null}`, false},
		{`{"a":null}`, `{"b":null}`, false},
		{`[1,2]`, `[2,1]`, false},
		{`[1]`, `[1,1]`, false},
		{`1`, `1.0`, true},
		{`1`, `10e-1`, true},
		{`100`, `1E+2`, true},
		{`0`, `-0.00e7`, true},
		{`-1`, `1`, false},
		{`0.10`, `0.01`, false},
		{`0.01`, `1e-2`, true},
		{`9007199254740993`, `9007199254740992`, false},
		{`1e999999999999`, `1e999999999998`, false},
		{`1e2000000000`, `10e1999999999`, true},
		{`"a"`, `"\u0061"`, true},
		{`"1"`, `1`, false},
		{`true`, `false`, false},
		{`{}`, `[]`, false},
		{`{`, `{}`, false},
		{`{}`, `{} {}`, false},
	}
	for _, tt := range tests {
		if got := sameJSON(json.RawMessage(tt.a), json.RawMessage(tt.b)); got != tt.want {
			t.Errorf("%s and %s: %v", tt.a, tt.b, got)
		}
		if got := sameJSON(json.RawMessage(tt.b), json.RawMessage(tt.a)); got != tt.want {
			t.Errorf("%s and %s: %v", tt.b, tt.a, got)
		}
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	tests := []struct{ raw, want, message string }{
		{"", "", ""},
		{" ", "", ""},
		{" null ", "", ""},
		{` { "a" : [ 1 ] } `, `{"a":[1]}`, ""},
		{`[]`, "", "Expected object, received array"},
		{`"x"`, "", "Expected object, received string"},
		{`-1`, "", "Expected object, received number"},
		{`true`, "", "Expected object, received boolean"},
		{`false`, "", "Expected object, received boolean"},
		{`{"a"`, "", "attributes is not valid JSON"},
	}
	for _, tt := range tests {
		got, issue, bad := object(json.RawMessage(tt.raw), "attributes")
		if string(got) != tt.want || bad != (tt.message != "") || issue.Message != tt.message {
			t.Errorf("%q: %s, %v %q", tt.raw, got, bad, issue.Message)
		}
	}
}
