package console

import (
	"fmt"
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
	return "the server's"
}

// soon is how long before its end a key is near it.
const soon = 7 * 24 * time.Hour

func (v *visit) keys() ([]keyView, error) {
	list, err := v.store().Keys(v.ctx, v.tenant())
	if err != nil {
		return nil, err
	}
	out := make([]keyView, len(list))
	for i, k := range list {
		view := keyView{APIKey: k, Own: k.KeyID == v.who.KeyID}
		view.Ended = !k.Active || k.ExpiresAt != nil && !k.ExpiresAt.After(v.now)
		if remaining := v.srv.cfg.Remaining; remaining != nil {
			if left, limit, known := remaining(v.now, k.TenantID, k.KeyID); known {
				view.Left = fmt.Sprintf("%d of %d", left, limit)
				if left*10 < limit {
					view.Near = "its rate limit"
				}
			}
		}
		switch {
		case view.Ended:
			view.Near = ""
		case k.UsageLimit != nil && k.UsageCount*10 >= *k.UsageLimit*9:
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

// keyForm is the form of a new key.
type keyForm struct {
	Form        url.Values
	Errors      map[string]string
	Permissions []string // those that the visitor may hand on
}

// Chosen reports whether a permission is ticked.
func (f *keyForm) Chosen(p string) bool { return slices.Contains(f.Form["permissions"], p) }

func (v *visit) newKey() error { return v.keyForm(http.StatusOK, url.Values{"mode": {"all"}}, nil) }

func (v *visit) keyForm(status int, form url.Values, problem error) error {
	f := keyForm{Form: form, Errors: fieldErrors(problem)}
	for _, p := range store.AllPermissions() {
		resource, action, _ := strings.Cut(p, ":")
		if v.who.Can(resource, action) {
			f.Permissions = append(f.Permissions, p)
		}
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
	d := store.KeyDraft{UserID: v.who.User.UserID, Name: strings.TrimSpace(f.Get("name"))}
	if n := len([]rune(d.Name)); n < 1 || n > 255 {
		return d, fault.Field("name", "must have 1 to 255 characters")
	}
	var err error
	if f.Get("mode") == "some" {
		d.Permissions = append([]string{}, f["permissions"]...)
	} else if d.Permissions, err = v.store().OwnList(v.ctx, v.who); err != nil {
		return d, err
	}
	if d.ExpiresAt, err = moment("expires_at", f.Get("expires_at"), true); err != nil {
		return d, err
	}
	if d.ExpiresAt != nil && !d.ExpiresAt.After(v.now) {
		return d, fault.Field("expires_at", "must be in the future")
	}
	if text := strings.TrimSpace(f.Get("usage_limit")); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return d, fault.Field("usage_limit", "must be a whole number from 1 on")
		}
		d.UsageLimit = &n
	}
	if d.Rate.MaxTokens, err = number(f.Get("max_tokens"), "max_tokens"); err != nil {
		return d, err
	}
	d.Rate.RefillPerMin, err = number(f.Get("refill_per_min"), "refill_per_min")
	return d, err
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
