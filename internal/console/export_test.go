package console

import (
	"context"
	"net/url"
	"sync/atomic"

	"github.com/ticketwire/ticketwire/internal/store"
	"github.com/ticketwire/ticketwire/internal/ticket"
)

// Route is a route as tests go through them.
type Route struct{ Pattern, Resource, Action string }

// Routes lists what needs a session.
func (s *Server) Routes() []Route {
	var out []Route
	for _, rt := range s.routes() {
		out = append(out, Route{rt.pattern, rt.resource, rt.action})
	}
	return out
}

// Viewers counts the live pages.
func (s *Server) Viewers() *atomic.Int64 { return &s.viewers }

// Mistakes is what a form makes of the errors of its fields.
func Mistakes(errs ...error) error { return mistakes(errs...) }

// NamesAsked counts by kind how often the list of tickets asks the store for names.
func (s *Server) NamesAsked(ctx context.Context, tenant string, filters url.Values) (map[string]int, error) {
	asked := map[string]int{}
	refs := filterReferences()
	for i, ref := range refs {
		refs[i].list = func(st *store.Store, ctx context.Context, tenant string, q store.ResourceQuery) ([]option, int, error) {
			asked[ref.kind]++
			return ref.list(st, ctx, tenant, q)
		}
	}
	v := &visit{ctx: ctx, who: store.Principal{TenantID: tenant}, srv: s}
	return asked, v.choose(&ticketList{Query: filters, Errors: map[string]string{}}, &ticket.Query{}, refs)
}
