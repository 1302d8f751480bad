package console_test

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/store"
)

// newKey makes a key of tenant a's user and returns it with its text.
func (d *desk) newKey(t *testing.T, draft store.KeyDraft) (store.APIKey, string) {
	t.Helper()
	draft.UserID = d.a.UserID
	k, text, err := d.store.CreateKey(t.Context(), time.Now(), d.a.TenantID, draft)
	return must(k, err)(t), text
}

// A key is changed by its form, and what the form does not show stays.
func TestKeyIsEdited(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	ends := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	k, text := d.newKey(t, store.KeyDraft{Name: "Mirror", Permissions: []string{"ticket:read"}, ExpiresAt: &ends, UsageLimit: new(int64(20))})
	edit := "/console/keys/" + k.KeyID + "/edit"
	form := url.Values{
		"name": {" Night <b>mirror</b> "}, "state": {"on"}, "expires_at": {ends.Format(time.DateOnly)},
		"usage_limit": {"500"}, "rate": {"on"}, "max_tokens": {"7"}, "refill_per_min": {"9"},
	}
	if r, page := b.post(edit, form); r.StatusCode != http.StatusSeeOther {
		t.Fatalf("saving answers %d: %s", r.StatusCode, page)
	}
	want := k
	want.Name, want.UsageLimit, want.Rate = "Night <b>mirror</b>", new(int64(500)), store.RateLimit{Enabled: new(true), MaxTokens: new(7), RefillPerMin: new(9)}
	if diff := cmp.Diff(want, must(d.store.Key(t.Context(), d.a.TenantID, k.KeyID))(t)); diff != "" {
		t.Errorf("saved (-want +got):\n%s", diff)
	}
	_, page := b.get(edit)
	for _, part := range []string{
		`name="name" value="Night &lt;b&gt;mirror&lt;/b&gt;"`, `value="500"`, `value="7"`, `value="9"`, `<option value="on" selected>`,
		`value="` + ends.Format(time.DateOnly) + `"`, "ticket:read", "Ada Lovelace",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the form is without %q", part)
		}
	}
	// Empty fields take limits away.
	if r, _ := b.post(edit, url.Values{"name": {"Mirror"}, "state": {"off"}}); r.StatusCode != http.StatusSeeOther {
		t.Fatalf("saving answers %d", r.StatusCode)
	}
	want = k
	want.Active, want.ExpiresAt, want.UsageLimit = false, nil, nil
	if diff := cmp.Diff(want, must(d.store.Key(t.Context(), d.a.TenantID, k.KeyID))(t)); diff != "" {
		t.Errorf("cleared (-want +got):\n%s", diff)
	}
	if _, err := d.store.Authenticate(t.Context(), time.Now(), text); err == nil {
		t.Error("a key that was ended opens")
	}
	b.post(edit, url.Values{"name": {"Mirror"}, "state": {"on"}})
	if _, err := d.store.Authenticate(t.Context(), time.Now(), text); err != nil {
		t.Errorf("a key that was switched on again: %v", err)
	}
}

func TestKeyEditIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	k, _ := d.newKey(t, store.KeyDraft{Name: "Mirror", Permissions: []string{"ticket:read"}})
	edit := "/console/keys/" + k.KeyID + "/edit"
	for _, c := range []struct {
		form url.Values
		want string
	}{
		{url.Values{}, "1 to 255 characters"},
		{url.Values{"name": {strings.Repeat("x", 256)}}, "1 to 255 characters"},
		{url.Values{"name": {"x"}, "expires_at": {"tomorrow"}}, "must be a day or a time"},
		{url.Values{"name": {"x"}, "usage_limit": {"0"}}, "from 1 on"},
		{url.Values{"name": {"x"}, "rate": {"maybe"}}, "must be empty, on or off"},
		{url.Values{"name": {"x"}, "max_tokens": {"many"}}, "must be a whole number"},
		{url.Values{"name": {"x"}, "max_tokens": {"4294967296"}}, "at most 2147483647"},
		{url.Values{"name": {"x"}, "refill_per_min": {"0"}}, "greater than or equal to 1"},
	} {
		if r, page := b.post(edit, c.form); r.StatusCode != http.StatusBadRequest || !strings.Contains(page, c.want) {
			t.Errorf("%v answers %d without %q", c.form, r.StatusCode, c.want)
		}
	}
	if diff := cmp.Diff(k, must(d.store.Key(t.Context(), d.a.TenantID, k.KeyID))(t)); diff != "" {
		t.Errorf("refused forms changed the key (-want +got):\n%s", diff)
	}
	// Permissions are no part of the form.
	b.post(edit, url.Values{"name": {"Mirror"}, "permissions": {"ticket:delete"}, "mode": {"all"}})
	if got := must(d.store.Key(t.Context(), d.a.TenantID, k.KeyID))(t); cmp.Diff(k.Permissions, got.Permissions) != "" {
		t.Errorf("the form granted %v", got.Permissions)
	}
	// Nobody shuts himself out, and nobody reaches another tenant's keys.
	own := must(d.store.Keys(t.Context(), d.a.TenantID))(t)[0].KeyID
	for _, form := range []url.Values{{"name": {"x"}, "state": {"off"}}, {"name": {"x"}, "expires_at": {"2020-01-01"}}} {
		if r, page := b.post("/console/keys/"+own+"/edit", form); r.StatusCode != http.StatusConflict || !strings.Contains(page, "A key cannot deactivate itself") {
			t.Errorf("ending one's own key with %v answers %d", form, r.StatusCode)
		}
	}
	other := d.signedIn(t, d.b.APIKey)
	if r, _ := other.get(edit); r.StatusCode != http.StatusNotFound {
		t.Errorf("another tenant's form answers %d", r.StatusCode)
	}
	if r, _ := other.post(edit, url.Values{"name": {"x"}}); r.StatusCode != http.StatusNotFound {
		t.Errorf("another tenant's key answers %d", r.StatusCode)
	}
}

// Both forms say of every field at once what is wrong with it.
func TestKeyFormSaysAllThatIsWrong(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "http://desk.example")
	b := d.signedIn(t, d.a.APIKey)
	k, _ := d.newKey(t, store.KeyDraft{Name: "Mirror"})
	form := url.Values{
		"name": {" "}, "expires_at": {"tomorrow"}, "usage_limit": {"few"}, "rate": {"maybe"}, "max_tokens": {"many"}, "refill_per_min": {"0"},
	}
	want := []string{
		"must have 1 to 255 characters", "must be a day or a time", "must be a whole number from 1 on", "must be empty, on or off",
		"must be a whole number", "Number must be greater than or equal to 1",
	}
	for _, path := range []string{"/console/keys/new", "/console/keys/" + k.KeyID + "/edit"} {
		r, page := b.post(path, form)
		var got []string
		for _, m := range regexp.MustCompile(`<span class="problem" role="alert">([^<]*)<`).FindAllStringSubmatch(page, -1) {
			got = append(got, m[1])
		}
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], " such as")
		}
		if diff := cmp.Diff(want, got); diff != "" || r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s answers %d (-want +got):\n%s", path, r.StatusCode, diff)
		}
	}
	_, page := b.post("/console/keys/new", url.Values{"name": {""}, "expires_at": {"2020-01-01"}})
	if !strings.Contains(page, "1 to 255 characters") || !strings.Contains(page, "must be in the future") {
		t.Error("a new key that has ended before and has no name is not said to be both")
	}
}

// What the API says is left is shown, and warned of on the overview.
func TestKeysNearALimit(t *testing.T) {
	t.Parallel()
	left := map[string]store.Remaining{}
	d := newDesk(t, "http://desk.example", func(c *console.Config) {
		c.Remaining = func(_ context.Context, _ time.Time, _ string, keys []store.APIKey) (map[string]store.Remaining, error) {
			if len(keys) == 0 {
				t.Error("asked about no keys")
			}
			return left, nil
		}
	})
	soon := time.Now().Add(time.Hour)
	fast, _ := d.newKey(t, store.KeyDraft{Name: "Fast"})
	d.newKey(t, store.KeyDraft{Name: "Slow"})
	d.newKey(t, store.KeyDraft{Name: "Short", ExpiresAt: &soon})
	_, used := d.newKey(t, store.KeyDraft{Name: "Used", UsageLimit: new(int64(10))})
	for range 9 {
		must(d.store.Authenticate(t.Context(), time.Now(), used))(t)
	}
	left[fast.KeyID] = store.Remaining{Calls: 11, Limit: 1200}
	b := d.signedIn(t, d.a.APIKey)
	_, page := b.get("/console/overview")
	_, near, _ := strings.Cut(page, "API keys near a limit")
	for name, want := range map[string]string{"Fast": "near its rate limit", "Short": "near its end", "Used": "near its limit of 10 calls"} {
		if _, rest, ok := strings.Cut(near, name+"</bdi>"); !ok || !strings.Contains(rest[:min(len(rest), 200)], want) {
			t.Errorf("%s is not said to be %q", name, want)
		}
	}
	if strings.Contains(near, "Slow") {
		t.Error("a key far from its limits is warned of")
	}
	if _, page := b.get("/console/keys"); !strings.Contains(page, "11 of 1,200") {
		t.Error("what is left is not in the list")
	}
	if _, page := b.get("/console/keys/" + fast.KeyID + "/edit"); !strings.Contains(page, "11 of 1,200") {
		t.Error("what is left is not beside the form")
	}
}
