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

// userHZ is the unit of times in /proc on every machine that Go runs on.
const userHZ = 100

// processStat is what is wanted of /proc/<pid>/stat.
type processStat struct {
	name   string
	parent int
	used   time.Duration // in user and kernel mode
	ended  time.Duration // the same of children that have ended
}

// readProcess reads /proc/<pid>/stat, which only Linux has.
func readProcess(pid int) (p processStat, known bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, false
	}
	// The name stands in brackets and may have some itself.
	_, rest, _ := strings.Cut(string(text), "(")
	end := strings.LastIndexByte(rest, ')')
	if end < 0 {
		return p, false
	}
	p.name = rest[:end]
	fields := strings.Fields(rest[end+1:]) // from the third on
	if len(fields) < 15 {
		return p, false
	}
	ticks := func(i int) time.Duration {
		n, _ := strconv.ParseInt(fields[i], 10, 64) // the kernel writes numbers
		return time.Duration(n) * time.Second / userHZ
	}
	p.parent, err = strconv.Atoi(fields[1])
	p.used, p.ended = ticks(11)+ticks(12), ticks(13)+ticks(14)
	return p, err == nil
}

// processCPU is what a process has used so far; 0 where it is not known.
func processCPU(pid int) time.Duration {
	p, _ := readProcess(pid)
	return p.used
}

// serverCPU is what the PostgreSQL has used so far that one of its processes is
// given of: its main process and all children, also those that ended. It is 0 where
// it is not known, as when there is no such process on this machine.
func serverCPU(session int) time.Duration {
	const program = "postgres"
	one, known := readProcess(session)
	server, up := readProcess(one.parent)
	if !known || !up || one.name != program || server.name != program {
		return 0
	}
	total := server.used + server.ended
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, known := readProcess(pid); known && p.parent == one.parent {
			total += p.used + p.ended
		}
	}
	return total
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
