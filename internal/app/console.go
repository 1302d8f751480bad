//go:build !noconsole

package app

import (
	"net/http"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/console"
	"github.com/ticketwire/ticketwire/internal/egress"
)

// HasConsole says whether this build serves the console; the build tag noconsole
// leaves it out.
const HasConsole = true

// console adds the console's routes to the API's. Its live pages end before the
// server does.
func (a *App) console(mux *http.ServeMux, targets egress.Config, rest *api.Server) {
	c := console.New(console.Config{
		Store: a.store, Engine: a.engine, Egress: targets, PublicURL: a.cfg.PublicURL, Threads: a.cfg.Threads, Policy: a.cfg.Policy,
		Remaining: rest.Remaining, Mail: a.cfg.SMTPURL != "", Now: a.cfg.Now, Log: a.cfg.Log,
	})
	for _, pattern := range []string{"/console", "/console/", "/msp/"} {
		mux.Handle(pattern, c)
	}
	a.endLive = c.Close
}
