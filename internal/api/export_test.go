package api

import "net/http"

// RouteList returns every operation the server registers, as "METHOD /path", in
// the order of the contract.
func (s *Server) RouteList() []string {
	list := []string{"GET /openapi.yaml"}
	for _, rt := range s.routes() {
		list = append(list, rt.pattern())
	}
	return list
}

// Permissions returns what each operation that has one in RouteList needs, as
// "resource:action".
func (s *Server) Permissions() map[string]string {
	need := map[string]string{}
	for _, rt := range s.routes() {
		need[rt.pattern()] = rt.resource + ":" + rt.action
	}
	return need
}

// Handle adds a route that needs ticket:read, for what no other one does.
func (s *Server) Handle(path string, fn func()) {
	rt := route{http.MethodGet, path, "ticket", "read", func(*call) (answer, error) {
		fn()
		return ok(nil), nil
	}}
	s.mux.HandleFunc("GET /api/v1"+path, s.serve(rt))
}

func (rt route) pattern() string { return rt.method + " /api/v1" + rt.path }
