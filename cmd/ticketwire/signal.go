package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// notify sends the signals that ask a server to stop.
func notify(ch chan<- os.Signal) { signal.Notify(ch, os.Interrupt, syscall.SIGTERM) }

// secondSignalExits ends the process at the next signal: whoever sends a second
// one does not want to wait. Nothing is lost, since leases end with the process.
func secondSignalExits(t terminal) {
	again := make(chan os.Signal, 1)
	notify(again)
	go func() {
		awaitSecond(again)
		fmt.Fprintln(t.err, "second signal: exiting at once")
		os.Exit(exitFailed)
	}()
}

// sameSignal is how long after the first signal another one is taken for the same:
// timeout(1), and a shell that has both in one process group, send it to the
// process and to the group.
const sameSignal = 500 * time.Millisecond

// awaitSecond waits for a signal that is not the echo of one just before the call.
func awaitSecond(again <-chan os.Signal) {
	for begun := time.Now(); ; {
		<-again
		if time.Since(begun) >= sameSignal {
			return
		}
	}
}
