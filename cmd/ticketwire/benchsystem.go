package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// watchMemory samples this process's resident memory until the function it
// returns is called, which gives the highest value in MB; 0 where it is not
// known.
func watchMemory(ctx context.Context) (peak func() float64) {
	ctx, stop := context.WithCancel(ctx)
	highest := make(chan float64)
	go func() {
		top := processMemory(os.Getpid(), "VmRSS")
		for pause(ctx, 100*time.Millisecond) == nil {
			top = max(top, processMemory(os.Getpid(), "VmRSS"))
		}
		highest <- top
	}()
	return func() float64 {
		stop()
		return <-highest
	}
}

// peakMemory is the highest resident memory of a process since it started, in MB.
func peakMemory(pid int) float64 { return processMemory(pid, "VmHWM") }

// processMemory reads a value of /proc/<pid>/status, which only Linux has.
func processMemory(pid int, name string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\n"+name+":")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kb, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0
	}
	return kb / 1024
}

// loadAverage is how many processes wanted to run in the last minute; 0 where it
// is not known.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}
