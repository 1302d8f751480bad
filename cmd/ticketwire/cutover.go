package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/cutover"
)

type cutoverCmd struct {
	Start    cutoverStartCmd    `cmd:"" help:"Run the poller and the receiver side by side, and record what both see."`
	Status   cutoverStatusCmd   `cmd:"" help:"Show how it goes, and what is missing for GO."`
	Report   cutoverReportCmd   `cmd:"" help:"Compare what both saw, and say whether the poller can go."`
	Drill    cutoverDrillCmd    `cmd:"" help:"Prove on purpose what a quiet day does not show."`
	Finish   cutoverFinishCmd   `cmd:"" help:"Give the receiver its turn, if the comparison allows it."`
	Rollback cutoverRollbackCmd `cmd:"" help:"Give the turn back to the poller."`
}

// stateFlag names a cutover directory.
type stateFlag struct {
	State string `help:"Cutover directory." default:"ticketwire-cutover" placeholder:"DIR" type:"path"`
}

// typed is the directory as short as it was typed.
func (c *stateFlag) typed() string {
	if abs, err := filepath.Abs(cutover.DefaultDir); err == nil && abs == c.State {
		return cutover.DefaultDir
	}
	return c.State
}

// cutoverFlags say which cutover a command is about, and with which key it asks
// the server.
type cutoverFlags struct {
	stateFlag
	URL    string `name:"url" help:"Base URL of the service. Default: that of the cutover." placeholder:"URL"`
	APIKey string `name:"api-key" help:"API key; better given as TICKETWIRE_API_KEY, where other users cannot see it." placeholder:"KEY"`
}

// open reads the setup and makes a client of its server.
func (c *cutoverFlags) open() (*cutover.Setup, *client.Client, error) {
	setup, err := cutover.LoadSetup(c.State)
	if err != nil {
		return nil, nil, err
	}
	if c.URL != "" && baseURL(c.URL) != setup.Server {
		return nil, nil, usageError{fmt.Errorf("--url: the cutover in %s is about %s", c.State, setup.Server), "leave --url out"}
	}
	c.URL = setup.Server
	api, err := apiFlags{URL: c.URL, APIKey: c.APIKey}.connect()
	return setup, api, err
}

// baseURL is a server's address in the form in which addresses are compared.
func baseURL(url string) string {
	return strings.TrimSuffix(strings.TrimRight(url, "/"), "/api/v1")
}
