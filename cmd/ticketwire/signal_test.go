package main

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheEchoOfASignalIsNoSecondOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		again := make(chan os.Signal)
		begun := time.Now()
		over := make(chan time.Duration, 1)
		go func() {
			awaitSecond(again)
			over <- time.Since(begun)
		}()
		again <- syscall.SIGTERM
		time.Sleep(sameSignal - time.Nanosecond)
		again <- syscall.SIGTERM
		time.Sleep(time.Nanosecond)
		again <- syscall.SIGTERM
		if took := <-over; took != sameSignal {
			t.Errorf("ended after %s, want %s", took, sameSignal)
		}
	})
}
