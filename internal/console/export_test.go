package console

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

// Mistakes is what a form makes of the errors of its fields.
func Mistakes(errs ...error) error { return mistakes(errs...) }
