package ticket

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ticketwire/ticketwire/internal/fault"
)

func TestNormalizeTag(t *testing.T) {
	t.Parallel()
	if got, err := NormalizeTag("  On-Site ÅÄ "); got != "on-site åä" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := NormalizeTag(strings.Repeat("x", 51))
	wantFault(t, err, fault.Invalid, []any{"tag_text"}, "String must contain at most 50 character(s)")
	if _, err := NormalizeTag(strings.Repeat("ö", MaxTag)); err != nil {
		t.Errorf("50 characters: %v", err)
	}
}

func TestNormalizeTags(t *testing.T) {
	t.Parallel()
	got, err := NormalizeTags([]string{"b", " A", "B ", "a1"})
	if diff := cmp.Diff([]string{"a", "a1", "b"}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if got, err := NormalizeTags(nil); got == nil || err != nil {
		t.Errorf("no tags: %v, %v", got, err)
	}
	many := make([]string, MaxTags)
	for i := range many {
		many[i] = fmt.Sprint("t", i)
	}
	if _, err := NormalizeTags(append(many, "T0")); err != nil {
		t.Errorf("50 tags and a double: %v", err)
	}
	_, err = NormalizeTags(append(many, "one more"))
	wantFault(t, err, fault.Invalid, []any{"tags"}, "Array must contain at most 50 element(s)")
	_, err = NormalizeTags([]string{"ok", "", "x\x00"})
	if f, ok := err.(*fault.Error); !ok || len(f.Issues) != 2 || f.Issues[1].Path[1] != 2 {
		t.Errorf("got %+v, want issues at 1 and 2", err)
	}
}

func TestNormalizedTagsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		once, err := NormalizeTags(rapid.SliceOf(rapid.String()).Draw(rt, "tags"))
		if err != nil {
			rt.Skip("these tags are refused")
		}
		twice, err := NormalizeTags(once)
		if err != nil || !slices.Equal(once, twice) {
			rt.Fatalf("%q became %q, %v", once, twice, err)
		}
	})
}

func TestSuppressCheckFlags(t *testing.T) {
	t.Parallel()
	for _, s := range []Suppress{{}, {ContactNotifications: true}, {ContactNotifications: true, InternalNotifications: true}} {
		if err := s.CheckFlags(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	wantFault(t, Suppress{InternalNotifications: true}.CheckFlags(), fault.Invalid,
		[]any{"suppressInternalNotifications"}, "suppressInternalNotifications requires suppressContactNotifications")
}

func TestCheckSort(t *testing.T) {
	t.Parallel()
	for _, name := range SortColumns() {
		if err := CheckSort(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "attributes", "title desc", "TITLE"} {
		err := CheckSort(name)
		f, ok := err.(*fault.Error)
		if !ok || f.Kind != fault.Invalid || len(f.Issues) != 1 || f.Issues[0].Extra["received"] != name {
			t.Errorf("%q: %+v", name, err)
		}
	}
}

func TestParseFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		list string
		want []string
		err  string
	}{
		{"", nil, ""},
		{" , ", nil, ""},
		{"title, tags,title", []string{"title", "tags"}, ""},
		{"mobile_list", FieldNames(), ""},
		{"title,a,b", nil, "Unknown fields requested: a, b"},
		{"Title", nil, "Unknown fields requested: Title"},
	}
	for _, tt := range tests {
		got, err := ParseFields(tt.list)
		if tt.err != "" {
			wantFault(t, err, fault.Invalid, nil, tt.err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", tt.list, err, diff)
		}
	}
}

// A projection shows what the ticket shows under the same names; only tags are
// objects.
func TestProject(t *testing.T) {
	t.Parallel()
	d := draft()
	d.AssignedTo = new(theoID)
	tk := create(t, newWorld(), d)
	tags := []Tag{{TagID: "2", Text: "printer", TextColor: new("#fff")}, {TagID: "1", Text: "onsite"}}

	ids := decodeObject(t, Project(&tk, nil, nil))
	want := []string{"assigned_team_id", "assigned_to", "board_id", "client_id", "entered_by", "status_id", "ticket_id"}
	if diff := cmp.Diff(want, keys(ids)); diff != "" {
		t.Error(diff)
	}

	whole := decodeObject(t, &tk)
	got := decodeObject(t, Project(&tk, tags, FieldNames()))
	for _, name := range append(FieldNames(), want...) {
		if name != "tags" && string(got[name]) != string(whole[name]) {
			t.Errorf("%s: %s, ticket has %s", name, got[name], whole[name])
		}
	}
	if len(got) != len(FieldNames())+5 { // ticket_id and status_id are in both lists
		t.Errorf("keys %v", keys(got))
	}
	wantTags := `[{"tag_id":"1","tag_text":"onsite","background_color":null,"text_color":null},` +
		`{"tag_id":"2","tag_text":"printer","background_color":null,"text_color":"#fff"}]`
	if string(got["tags"]) != wantTags {
		t.Errorf("tags %s", got["tags"])
	}
	if none := decodeObject(t, Project(&tk, nil, []string{"tags"})); string(none["tags"]) != "[]" {
		t.Errorf("no tags: %s", none["tags"])
	}
}

func decodeObject(t *testing.T, v any) map[string]json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func keys(m map[string]json.RawMessage) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
