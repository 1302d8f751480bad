package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notify sends the signals that ask a server to stop.
func notify(ch chan<- os.Signal) { signal.Notify(ch, os.Interrupt, syscall.SIGTERM) }
