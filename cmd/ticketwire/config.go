package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"

	"github.com/ticketwire/ticketwire/internal/delivery"
)

type configCmd struct {
	serviceFlags
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Help is shown below the flags.
func (configCmd) Help() string {
	return `Takes the flags, the environment and the config file of serve, checks them, and prints
what would be in force, in the form of a config file.

Examples:
  ticketwire config
  ticketwire config --config ticketwire.toml --json`
}

// Run prints the settings, in the order of the help.
func (c *configCmd) Run(k *kong.Context, t terminal) error {
	cfg, err := c.serviceFlags.config(t.err)
	if err != nil {
		return err
	}
	values := map[string]any{}
	var names []string
	for _, f := range k.Selected().Flags {
		if f.Name == "json" || f.Name == "help" || f.Name == "config" {
			continue
		}
		v := f.Target.Interface()
		switch x := v.(type) {
		case time.Duration:
			v = x.String()
		case rateFlag:
			v = fmt.Sprintf("%d/%d", x.MaxTokens, x.RefillPerMin)
		case string:
			switch f.Name {
			case "smtp-url", "database-url", "egress-proxy":
				v = redactURL(x)
			case "warn-after":
				v = delivery.FormatSchedule(cfg.Policy.WarnAfter) // of the default, what --disable-after leaves
			}
		}
		names = append(names, f.Name)
		values[f.Name] = v
	}
	if c.JSON {
		enc := json.NewEncoder(t.out)
		enc.SetIndent("", "  ")
		return enc.Encode(values)
	}
	for _, n := range names {
		line, err := toml.Marshal(map[string]any{n: values[n]})
		if err != nil {
			return fmt.Errorf("print %s: %w", n, err)
		}
		if _, err := t.out.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// redactURL hides the passwords of a URL, also those behind a question mark, where
// PostgreSQL takes one too. What is no URL is hidden whole.
func redactURL(raw string) string {
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return "[REDACTED]"
	}
	settings := u.Query()
	for name := range settings {
		if strings.Contains(name, "password") {
			settings.Set(name, "xxxxx")
			u.RawQuery = settings.Encode()
		}
	}
	return u.Redacted()
}
