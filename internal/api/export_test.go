package api

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

func (rt route) pattern() string { return rt.method + " /api/v1" + rt.path }
