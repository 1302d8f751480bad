package console

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/internal/store"
)

func keyRoutes() []route {
	return []route{
		{"GET /console/keys", "api_key", "read", (*visit).listKeys},
		{"GET /console/keys/new", "api_key", "create", (*visit).newKey},
		{"POST /console/keys/new", "api_key", "create", (*visit).createKey},
		{"GET /console/keys/{id}/edit", "api_key", "update", (*visit).editKey},
		{"POST /console/keys/{id}/edit", "api_key", "update", (*visit).updateKey},
		{"POST /console/keys/{id}/revoke", "api_key", "delete", (*visit).revokeKey},
	}
}

// keyView is a key and how much of it is left.
type keyView struct {
	store.APIKey
	Own   bool   // the visitor has signed in with it
	Left  string // calls that it may make at this moment; "" if it has made none lately
	Near  string // which limit it is near to; "" for none
	Ended bool
}

// Limit is its rate limit in words.
func (k *keyView) Limit() string {
	r := k.Rate
	switch {
	case r.Enabled != nil && !*r.Enabled:
		return "none"
	case r.MaxTokens != nil && r.RefillPerMin != nil:
		return fmt.Sprintf("%d at once, %d per minute", *r.MaxTokens, *r.RefillPerMin)
	case r.MaxTokens != nil:
		return fmt.Sprintf("%d at once", *r.MaxTokens)
	case r.RefillPerMin != nil:
		return fmt.Sprintf("%d per minute", *r.RefillPerMin)
	}
	return "as set for the desk"
}

// All reports whether it may do all that its user may.
func (k *keyView) All() bool { return k.Permissions == nil }

// soon is how long before its end a key is near it.
const soon = 7 * 24 * time.Hour

// keys are the tenant's keys, the oldest first.
func (v *visit) keys() ([]keyView, error) {
	list, err := v.store().Keys(v.ctx, v.tenant())
	if err != nil {
		return nil, err
	}
	return v.keyViews(list)
}

func (v *visit) keyViews(list []store.APIKey) ([]keyView, error) {
	var left map[string]store.Remaining
	if ask := v.srv.cfg.Remaining; ask != nil {
		var err error
		if left, err = ask(v.ctx, v.now, v.tenant(), list); err != nil {
			return nil, err
		}
	}
	out := make([]keyView, len(list))
	for i, k := range list {
		view := keyView{APIKey: k, Own: k.KeyID == v.who.KeyID, Ended: k.Ended(v.now)}
		if r, known := left[k.KeyID]; known {
			view.Left = fmt.Sprintf("%s of %s", num(r.Calls), num(r.Limit))
			if r.Calls*10 < r.Limit {
				view.Near = "its rate limit"
			}
		}
		switch {
		case view.Ended:
			view.Near = ""
		case k.UsageLimit != nil && k.UsageCount >= *k.UsageLimit-*k.UsageLimit/10:
			view.Near = fmt.Sprintf("its limit of %s calls", num(*k.UsageLimit))
		case k.ExpiresAt != nil && k.ExpiresAt.Before(v.now.Add(soon)):
			view.Near = "its end"
		}
		out[i] = view
	}
	return out, nil
}

func (v *visit) listKeys() error {
	keys, err := v.keys()
	if err != nil {
		return err
	}
	slices.Reverse(keys) // the newest first
	return v.page(http.StatusOK, "keys", "keys", "API keys", keys)
}

// keyForm is the form of a key, new or old.
type keyForm struct {
	Form   url.Values
	Errors map[string]string
	Grants []grant  // what the visitor may hand on, for a new key
	Key    *keyView // the key as it is; nil for a new one
	Owner  string   // whom it acts as
}

// grant is what can be allowed to do with one thing.
type grant struct {
	Resource string
	Actions  []string
}

// Chosen reports whether a permission is ticked.
func (f *keyForm) Chosen(p string) bool { return slices.Contains(f.Form["permissions"], p) }

func (v *visit) newKey() error { return v.keyForm(http.StatusOK, url.Values{"mode": {"all"}}, nil) }

func (v *visit) keyForm(status int, form url.Values, problem error) error {
	f := keyForm{Form: form, Errors: fieldErrors(problem)}
	for _, p := range store.AllPermissions() {
		resource, action, _ := strings.Cut(p, ":")
		if !v.who.Can(resource, action) {
			continue
		}
		if n := len(f.Grants); n == 0 || f.Grants[n-1].Resource != resource {
			f.Grants = append(f.Grants, grant{Resource: resource})
		}
		last := &f.Grants[len(f.Grants)-1]
		last.Actions = append(last.Actions, action)
	}
	return v.page(status, "keyform", "keys", "New API key", &f)
}

// newKeyPage shows a key that was made this moment, once.
type newKeyPage struct{ Name, Text string }

// createKey makes a key for the visitor himself. It may do no more than he may.
func (v *visit) createKey() error {
	f := v.form
	d, err := v.keyDraft(f)
	if err == nil {
		err = v.who.MayGrant(d.Permissions)
	}
	if err == nil {
		var k store.APIKey
		var text string
		if k, text, err = v.store().CreateKey(v.ctx, v.now, v.tenant(), d); err == nil {
			return v.page(http.StatusOK, "newkey", "keys", "New API key", newKeyPage{k.Name, text})
		}
	}
	if formFailed(err) {
		return v.keyForm(fault.KindOf(err).HTTPStatus(), f, err)
	}
	return err
}

func (v *visit) keyDraft(f url.Values) (store.KeyDraft, error) {
	k := store.APIKey{}
	err := v.readKey(f, &k)
	if k.Ended(v.now) {
		err = mistakes(err, fault.Field("expires_at", "must be in the future"))
	}
	if err != nil {
		return store.KeyDraft{}, err
	}
	d := store.KeyDraft{UserID: v.who.User.UserID, Name: k.Name, ExpiresAt: k.ExpiresAt, UsageLimit: k.UsageLimit, Rate: k.Rate}
	if f.Get("mode") == "some" {
		d.Permissions = append([]string{}, f["permissions"]...)
		return d, nil
	}
	d.Permissions, err = v.store().OwnList(v.ctx, v.who)
	return d, err
}

// readKey puts the fields that a key may have at any time into k. The error has all
// that is wrong.
func (v *visit) readKey(f url.Values, k *store.APIKey) error {
	var wrong []error
	k.Name, k.Active = strings.TrimSpace(f.Get("name")), f.Get("state") != "off"
	if n := len([]rune(k.Name)); n < 1 || n > 255 {
		wrong = append(wrong, fault.Field("name", "must have 1 to 255 characters"))
	}
	var err error
	// The day alone is shown: a key that ends at another time of that day still does.
	if day := f.Get("expires_at"); day != dayOf(k.ExpiresAt) {
		k.ExpiresAt, err = moment("expires_at", day, true)
		wrong = append(wrong, err)
	}
	k.UsageLimit = nil
	if text := strings.TrimSpace(f.Get("usage_limit")); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			wrong = append(wrong, fault.Field("usage_limit", "must be a whole number from 1 on"))
		}
		k.UsageLimit = &n
	}
	k.Rate = store.RateLimit{}
	switch f.Get("rate") {
	case "":
	case "on", "off":
		k.Rate.Enabled = new(f.Get("rate") == "on")
	default:
		wrong = append(wrong, fault.Field("rate", "must be empty, on or off"))
	}
	k.Rate.MaxTokens, err = calls(f, "max_tokens")
	wrong = append(wrong, err)
	k.Rate.RefillPerMin, err = calls(f, "refill_per_min")
	return mistakes(append(wrong, err)...)
}

// calls reads a number that has a column of 32 bits; nil for an empty field.
func calls(f url.Values, field string) (*int, error) {
	n, err := number(f.Get(field), field)
	switch {
	case n == nil:
	case *n < 1: // refused here, so that it is said with what else is wrong
		return nil, fault.Field(field, "Number must be greater than or equal to 1")
	case *n > math.MaxInt32:
		return nil, fault.Field(field, "must be at most %d", math.MaxInt32)
	}
	return n, err
}

// dayOf is the day of an instant as a field of a form has it; "" for none.
func dayOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

func (v *visit) editKey() error {
	k, err := v.store().Key(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	f := url.Values{"name": {k.Name}, "expires_at": {dayOf(k.ExpiresAt)}, "state": {"on"}}
	if !k.Active {
		f.Set("state", "off")
	}
	if k.UsageLimit != nil {
		f.Set("usage_limit", strconv.FormatInt(*k.UsageLimit, 10))
	}
	if on := k.Rate.Enabled; on != nil {
		f.Set("rate", map[bool]string{true: "on", false: "off"}[*on])
	}
	for field, n := range map[string]*int{"max_tokens": k.Rate.MaxTokens, "refill_per_min": k.Rate.RefillPerMin} {
		if n != nil {
			f.Set(field, strconv.Itoa(*n))
		}
	}
	return v.oldKeyForm(http.StatusOK, f, nil)
}

// oldKeyForm shows the form of a key that there is, beside how much it is used.
func (v *visit) oldKeyForm(status int, form url.Values, problem error) error {
	k, err := v.store().Key(v.ctx, v.tenant(), v.r.PathValue("id"))
	if err != nil {
		return err
	}
	views, err := v.keyViews([]store.APIKey{k})
	if err != nil {
		return err
	}
	f := keyForm{Form: form, Errors: fieldErrors(problem), Key: &views[0]}
	if f.Owner, err = v.nameOf(k.UserID); err != nil {
		return err
	}
	return v.page(status, "keyform", "keys", "API key "+k.Name, &f)
}

// nameOf is what a user of the visitor's tenant is called, or his address; "" for
// one that is not there any more.
func (v *visit) nameOf(userID string) (string, error) {
	u, err := v.store().User(v.ctx, v.tenant(), userID)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	if name := u.DisplayName(); name != nil {
		return *name, err
	}
	return u.Email, err
}

// updateKey changes all of a key but what it may do.
func (v *visit) updateKey() error {
	_, err := v.store().UpdateKey(v.ctx, v.now, v.tenant(), v.r.PathValue("id"), func(k *store.APIKey) error {
		if err := v.readKey(v.form, k); err != nil {
			return err
		}
		if k.Ended(v.now) {
			return v.who.MayEnd(k.KeyID, "deactivate")
		}
		return nil
	})
	if formFailed(err) {
		return v.oldKeyForm(fault.KindOf(err).HTTPStatus(), v.form, err)
	}
	if err != nil {
		return err
	}
	return v.redirect("/console/keys", "saved")
}

func (v *visit) revokeKey() error {
	id := v.r.PathValue("id")
	if err := v.who.MayEnd(id, "delete"); err != nil {
		return err
	}
	if err := v.store().DeleteKey(v.ctx, v.tenant(), id); err != nil {
		return err
	}
	return v.redirect("/console/keys", "revoked")
}
