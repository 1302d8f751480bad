package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ticketwire/ticketwire/internal/delivery"
	"github.com/ticketwire/ticketwire/internal/fault"
	"github.com/ticketwire/ticketwire/webhook"
)

func TestWebhooks(t *testing.T) {
	t.Parallel()
	exercise(t, map[string]func(*testing.T, opener){
		"every field survives":              everyField,
		"an invalid change changes nothing": invalidChange,
		"the tenant's limit":                webhookLimit,
		"rotation with and without grace":   rotation,
		"lists are filtered and paged":      webhookLists,
		"tenants do not meet":               webhookTenants,
		"deleted webhooks free their place": deletedFrees,
	})
}

func everyField(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	full := delivery.Spec{
		Name: "All <of> it", Description: new("text"), URL: "https://hooks.example/?a=b&c", Method: "PATCH",
		EventTypes:    []string{webhook.TicketClosed, webhook.TicketCreated},
		CustomHeaders: map[string]string{"Authorization": "Bearer t0ps3cret", "X-A": "b"},
		EventFilter: &delivery.Filter{
			EntityIDs: []string{NewID()}, Tags: []string{"vip"},
			Conditions: []delivery.Condition{{Field: "title", Operator: "contains", Value: "x"}},
		},
		PayloadFields: delivery.PayloadFields{"ticket": {}, "project": nil},
		VerifySSL:     true, IsActive: true, IsTestMode: true,
		TLS:         &delivery.TLS{ClientCert: "cert", ClientKey: "key", CABundle: "bundle"},
		RetryConfig: &delivery.RetryConfig{Schedule: []int64{1000, 2000}, Timeout: new(int64(5000))},
		RateLimit:   &delivery.RateLimit{Enabled: new(true), RequestsPerMinute: new(7)},
		Metadata:    json.RawMessage(`{"n":9007199254740993,"list":["a"]}`),
		Tags:        []string{"prod"},
	}
	created, secret, err := d.CreateWebhook(t.Context(), start(), d.Actor, full)
	if err != nil {
		t.Fatal(err)
	}
	if len(secret) != 43 {
		t.Errorf("secret of %d characters", len(secret))
	}
	at := start().Truncate(time.Microsecond)
	want := delivery.Webhook{
		TenantID: d.TenantID, WebhookID: created.WebhookID, CreatedBy: d.UserID, Spec: full, CreatedAt: at, UpdatedAt: at,
	}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, must(d.Webhook(t.Context(), d.TenantID, strings.ToUpper(created.WebhookID)))(t)); diff != "" {
		t.Error(diff)
	}
	if got := must(d.Secrets(t.Context(), start(), d.TenantID, created.WebhookID))(t); got != (Secrets{Current: secret}) {
		t.Error("the secret that is stored is not the one that was shown")
	}
	plain, _, err := d.CreateWebhook(t.Context(), start(), d.Actor, spec())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec(), plain.Spec, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	updated, _, err := d.UpdateWebhook(t.Context(), start().Add(time.Hour), d.Actor, created.WebhookID, func(s *delivery.Spec) error {
		if diff := cmp.Diff(full, *s); diff != "" {
			t.Error(diff)
		}
		*s = spec()
		return nil
	}, false)
	if err != nil || !updated.UpdatedAt.Equal(at.Add(time.Hour)) || updated.CustomHeaders != nil || updated.EventFilter != nil || updated.TLS != nil {
		t.Errorf("updated %+v, %v", updated, err)
	}
}

func invalidChange(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	bad := spec()
	bad.Method = "GET"
	_, _, err := d.CreateWebhook(t.Context(), start(), d.Actor, bad)
	wantKind(t, "create", err, fault.Invalid)
	refuse := errors.New("no")
	for name, change := range map[string]func(*delivery.Spec) error{
		"invalid": func(s *delivery.Spec) error { s.Name, s.EventTypes = "changed", nil; return nil },
		"refused": func(s *delivery.Spec) error { s.Name = "changed"; return refuse },
	} {
		if _, _, err := d.UpdateWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID, change, false); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if diff := cmp.Diff(l.hook, l.current()); diff != "" {
		t.Error(diff)
	}
	_, _, err = d.UpdateWebhook(t.Context(), start(), d.Actor, NewID(), func(*delivery.Spec) error { return nil }, false)
	wantKind(t, "unknown webhook", err, fault.NotFound)
}

func webhookLimit(t *testing.T, open opener) {
	s := open(t, guide, func(c *Config) { c.MaxWebhooks = 2 })
	d := newDesk(t, s, "acme")
	d.hook(start())
	d.hook(start())
	_, _, err := d.CreateWebhook(t.Context(), start(), d.Actor, spec())
	wantKind(t, "one too many", err, fault.Conflict)
	newDesk(t, s, "other").hook(start())
}

func deletedFrees(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide, func(c *Config) { c.MaxWebhooks = 1 }), "acme")
	for range 3 {
		l := d.hook(start())
		if err := d.DeleteWebhook(t.Context(), start(), d.Actor, l.hook.WebhookID); err != nil {
			t.Fatal(err)
		}
	}
	list, total, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{})
	if len(list) != 0 || total != 0 || err != nil {
		t.Errorf("%d of %d webhooks, %v", len(list), total, err)
	}
}

func rotation(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	l := d.hook(start())
	id := l.hook.WebhookID
	type pair struct{ current, previous string }
	at := func(now time.Time) pair {
		got := must(d.Secrets(t.Context(), now, d.TenantID, id))(t)
		return pair{got.Current, got.Previous}
	}
	first := at(start()).current
	second := must(d.RotateSecret(t.Context(), start(), d.TenantID, id, time.Hour))(t)
	for _, c := range []struct {
		after time.Duration
		want  pair
	}{{0, pair{second, first}}, {time.Hour - time.Microsecond, pair{second, first}}, {time.Hour, pair{current: second}}} {
		if at(start().Add(c.after)) != c.want {
			t.Errorf("wrong secrets %v after a rotation with grace", c.after)
		}
	}
	_, err := d.RotateSecret(t.Context(), start(), d.TenantID, id, time.Hour)
	wantKind(t, "rotate within a grace", err, fault.Conflict)
	if at(start()) != (pair{second, first}) {
		t.Error("a refused rotation changed the secrets")
	}
	later := start().Add(time.Hour)
	third := must(d.RotateSecret(t.Context(), later, d.TenantID, id, time.Hour))(t)
	if at(later) != (pair{third, second}) {
		t.Error("a rotation after the grace does not keep the secret before it")
	}
	if err := d.PromoteSecret(t.Context(), start(), d.TenantID, id); err != nil {
		t.Fatal(err)
	}
	if at(start()) != (pair{current: third}) {
		t.Error("promote keeps the old secret")
	}
	fourth := must(d.RotateSecret(t.Context(), start(), d.TenantID, id, 0))(t)
	if at(start()) != (pair{current: fourth}) {
		t.Error("a rotation without grace keeps the old secret")
	}
	_, err = d.RotateSecret(t.Context(), start(), d.TenantID, NewID(), 0)
	wantKind(t, "rotate", err, fault.NotFound)
	wantKind(t, "promote", d.PromoteSecret(t.Context(), start(), NewID(), id), fault.NotFound)
}

func webhookLists(t *testing.T, open opener) {
	d := newDesk(t, open(t, guide), "acme")
	at := func(i int) time.Time { return start().Add(time.Duration(i) * time.Minute) }
	var hooks []*line
	for i, name := range []string{"Alpha", "beta 100%", "Gamma"} {
		hooks = append(hooks, d.hook(at(i), func(s *delivery.Spec) {
			s.Name, s.URL, s.IsActive = name, "https://"+strings.ToLower(name[:1])+".example/", i != 2
			s.IsTestMode = i == 2
			s.EventTypes = []string{[]string{webhook.TicketCreated, webhook.TicketUpdated, webhook.TicketClosed}[i]}
			s.Description = new("number " + fmt.Sprint(i))
		}))
	}
	for _, code := range []int{200, 500} {
		d.create(at(10), d.draft("x"))
		hooks[0].answer(hooks[0].claimOne(at(10)), status(code), at(10))
	}
	rate := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		name string
		q    WebhookQuery
		want string
	}{
		{"all", WebhookQuery{}, "Abg"},
		{"newest first", WebhookQuery{Desc: true}, "gbA"},
		{"by name", WebhookQuery{Sort: "name", Desc: true}, "bgA"},
		{"by failures", WebhookQuery{Sort: "failed_deliveries", Desc: true}, "A.."},
		{"name", WebhookQuery{Name: "ALP"}, "A"},
		{"name with a wildcard", WebhookQuery{Name: "%"}, "b"},
		{"url", WebhookQuery{URL: "g.example"}, "g"},
		{"query on description", WebhookQuery{Query: "NUMBER 1"}, "b"},
		{"event type", WebhookQuery{EventType: webhook.TicketUpdated}, "b"},
		{"event type prefix", WebhookQuery{EventType: "ticket.update"}, ""},
		{"active", WebhookQuery{IsActive: new(true)}, "Ab"},
		{"inactive", WebhookQuery{IsActive: new(false)}, "g"},
		{"test mode", WebhookQuery{IsTestMode: new(true)}, "g"},
		{"with failures", WebhookQuery{HasFailures: new(true)}, "A"},
		{"without failures", WebhookQuery{HasFailures: new(false)}, "bg"},
		{"delivered since", WebhookQuery{LastDeliveryFrom: new(at(10))}, "A"},
		{"delivered until", WebhookQuery{LastDeliveryTo: new(at(9))}, ""},
		{"rate from", WebhookQuery{RateMin: rate(50.5)}, "bg"},
		{"rate to", WebhookQuery{RateMax: rate(50)}, "A"},
		{"format", WebhookQuery{PayloadFormat: "json"}, "Abg"},
		{"another format", WebhookQuery{PayloadFormat: "xml"}, ""},
		{"second page", WebhookQuery{Page: 2, Limit: 2}, "g"},
		{"past the end", WebhookQuery{Page: 9, Limit: 2}, ""},
	} {
		list, _, err := d.Webhooks(t.Context(), d.TenantID, c.q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := ""
		for _, w := range list {
			got += map[byte]string{'A': "A", 'b': "b", 'G': "g"}[w.Name[0]]
		}
		if got != c.want && !(strings.HasSuffix(c.want, "..") && len(got) == 3 && got[0] == c.want[0]) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if _, total, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{Page: 2, Limit: 2}); total != 3 || err != nil {
		t.Errorf("total %d, %v", total, err)
	}
	_, _, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{Sort: "secret"})
	wantKind(t, "sort by an unknown column", err, fault.Invalid)
	for _, column := range WebhookSortColumns() {
		if _, _, err := d.Webhooks(t.Context(), d.TenantID, WebhookQuery{Sort: column}); err != nil {
			t.Errorf("sort by %s: %v", column, err)
		}
	}
}

func webhookTenants(t *testing.T, open opener) {
	s := open(t, guide)
	l, me := newDesk(t, s, "owner").hook(start()), newDesk(t, s, "me")
	l.create(start(), l.draft("x"))
	b := l.claimOne(start())
	l.answer(b, status(500), start())
	ctx, id, row := t.Context(), l.hook.WebhookID, b.Deliveries[0].DeliveryID
	for name, call := range map[string]func() error{
		"Webhook": func() error { _, err := s.Webhook(ctx, me.TenantID, id); return err },
		"UpdateWebhook": func() error {
			_, _, err := s.UpdateWebhook(ctx, start(), me.Actor, id, func(*delivery.Spec) error { return nil }, true)
			return err
		},
		"DeleteWebhook": func() error { return s.DeleteWebhook(ctx, start(), me.Actor, id) },
		"RotateSecret":  func() error { _, err := s.RotateSecret(ctx, start(), me.TenantID, id, 0); return err },
		"Secrets":       func() error { _, err := s.Secrets(ctx, start(), me.TenantID, id); return err },
		"Deliveries":    func() error { _, _, err := s.Deliveries(ctx, me.TenantID, id, DeliveryQuery{}); return err },
		"Delivery":      func() error { _, err := s.Delivery(ctx, me.TenantID, id, row); return err },
		"BeginTest":     func() error { _, err := s.BeginTest(ctx, start(), me.TenantID, id, "x", lease); return err },
		"BeginRetry":    func() error { _, err := s.BeginRetry(ctx, start(), me.TenantID, id, row, "x", lease); return err },
		"Analytics":     func() error { _, err := s.Analytics(ctx, me.TenantID, id, start(), start()); return err },
	} {
		wantKind(t, name, call(), fault.NotFound)
	}
	if list, total, err := s.Webhooks(ctx, me.TenantID, WebhookQuery{}); len(list) != 0 || total != 0 || err != nil {
		t.Errorf("lists %d of another tenant's webhooks (%v)", total, err)
	}
	if a := must(s.Analytics(ctx, me.TenantID, "", start(), start().Add(time.Hour)))(t); a.Total != 0 {
		t.Errorf("counts %d of another tenant's deliveries", a.Total)
	}
}

// TestSecretsAreSealed looks for secrets in every file of the data directory.
func TestSecretsAreSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openAt(t, place{dir: dir}, guide)
	d := newDesk(t, s, "acme")
	i := idempotency(d, "k", "body")
	i.Render = func(v any) (int, []byte, error) { return 201, []byte(v.(CreatedWebhook).Secret), nil }
	sp := spec()
	sp.CustomHeaders = map[string]string{"Authorization": "Bearer t0ps3cret"}
	sp.TLS = &delivery.TLS{ClientCert: "the certificate", ClientKey: "the private key"}
	w, secret, err := d.CreateWebhook(WithIdempotency(t.Context(), i), start(), d.Actor, sp)
	if err != nil {
		t.Fatal(err)
	}
	rotated := must(d.RotateSecret(t.Context(), start(), d.TenantID, w.WebhookID, time.Hour))(t)
	d.create(start(), d.draft("x"))
	(&line{desk: d, hook: w}).claimOne(start())
	if _, body, found, err := d.Answer(t.Context(), i); !found || string(body) != secret || err != nil {
		t.Errorf("answer %v %v", found, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "ticketwire.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	seen := false
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		seen = seen || bytes.Contains(b, []byte(w.WebhookID))
		for what, text := range map[string]string{"first secret": secret, "second secret": rotated, "header": "t0ps3cret", "key": "the private key"} {
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s in %s", what, filepath.Base(f))
			}
		}
	}
	if !seen {
		t.Error("the files do not hold the webhook at all")
	}
}

// TestSealedValuesStayInTheirRow moves a sealed secret to another webhook.
func TestSealedValuesStayInTheirRow(t *testing.T) {
	t.Parallel()
	onEach(t, sealedValuesStay)
}

func sealedValuesStay(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide), "acme")
	a, b := d.hook(start()), d.hook(start())
	_, _, err := d.UpdateWebhook(t.Context(), start(), d.Actor, a.hook.WebhookID, func(s *delivery.Spec) error {
		s.TLS = &delivery.TLS{ClientKey: "key"}
		return nil
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	move := func(column string) {
		t.Helper()
		err := d.do(t.Context(), func(x *tx) error {
			_, err := x.exec(`update webhooks set `+column+` = (select o.`+column+` from webhooks o where o.tenant_id = $1 and o.webhook_id = $2)
				where tenant_id = $1 and webhook_id = $3`, d.TenantID, a.hook.WebhookID, b.hook.WebhookID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	move("secret")
	if _, err := d.Secrets(t.Context(), start(), d.TenantID, b.hook.WebhookID); err == nil {
		t.Error("a secret opens in another webhook's row")
	}
	move("tls")
	if _, err := d.Webhook(t.Context(), d.TenantID, b.hook.WebhookID); err == nil || strings.Contains(err.Error(), "key\"") {
		t.Errorf("a key opens in another webhook's row, or shows in the error: %v", err)
	}
}

// TestDeletedWebhookKeepsNoSecret looks into its row, which stays for its
// deliveries.
func TestDeletedWebhookKeepsNoSecret(t *testing.T) {
	t.Parallel()
	onEach(t, deletedKeepsNoSecret)
}

func deletedKeepsNoSecret(t *testing.T, p place) {
	d := newDesk(t, openAt(t, p, guide), "acme")
	sp := spec()
	sp.CustomHeaders, sp.TLS = map[string]string{"Authorization": "Bearer t0ps3cret"}, &delivery.TLS{ClientKey: "key"}
	w, _, err := d.CreateWebhook(t.Context(), start(), d.Actor, sp)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteWebhook(t.Context(), start(), d.Actor, w.WebhookID); err != nil {
		t.Fatal(err)
	}
	var kept int
	err = d.reader(t.Context()).row(`select count(*) from webhooks where secret <> '' or previous_secret is not null
		or custom_headers is not null or tls is not null`).Scan(&kept)
	if err != nil || kept != 0 {
		t.Errorf("%d rows keep a secret, %v", kept, err)
	}
}
