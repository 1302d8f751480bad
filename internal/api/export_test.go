package api

// RouteList returns every operation the server registers, as "METHOD /path",
// for the test that compares them with the document.
func (s *Server) RouteList() []string {
	list := []string{"GET /openapi.yaml"}
	for _, rt := range s.routes() {
		list = append(list, rt.method+" /api/v1"+rt.path)
	}
	return list
}
