//go:build noconsole

package app

import (
	"net/http"

	"github.com/ticketwire/ticketwire/internal/api"
	"github.com/ticketwire/ticketwire/internal/egress"
)

// HasConsole says whether this build serves the console; the build tag noconsole
// leaves it out.
const HasConsole = false

// console adds nothing: its addresses are those of no route.
func (*App) console(*http.ServeMux, egress.Config, *api.Server) {}
