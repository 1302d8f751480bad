package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// benchHook is the receiver's process as bench sees it.
type benchHook struct {
	url    string
	client *http.Client
	cmd    *exec.Cmd
	stdin  io.Closer // the receiver ends with it
}

// startBenchHook starts the receiver from the program that is running and waits
// until it listens.
func startBenchHook(ctx context.Context) (*benchHook, error) {
	cmd, err := benchChild(ctx, "bench-hook")
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	url, err := startChild(cmd)
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	return &benchHook{url: url, client: &http.Client{Transport: &http.Transport{}}, cmd: cmd, stdin: stdin}, nil
}

// benchChild prepares another command of this program. Settings that the
// operator made for his own service do not reach it.
func benchChild(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program itself
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TICKETWIRE_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// startChild starts cmd and returns the last word of the first line it prints,
// which is its address.
func startChild(cmd *exec.Cmd) (string, error) {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) == 0 {
		return "", errors.Join(fmt.Errorf("it said %q instead of its address", line), err, cmd.Process.Kill(), cmd.Wait())
	}
	return words[len(words)-1], nil
}

// stop ends the receiver.
func (h *benchHook) stop() error {
	h.client.CloseIdleConnections()
	h.stdin.Close()
	if err := h.cmd.Wait(); err != nil {
		if _, signalled := errors.AsType[*exec.ExitError](err); !signalled {
			return fmt.Errorf("end the receiver: %w", err)
		}
	}
	return nil
}

// reset forgets everything that has arrived.
func (h *benchHook) reset(ctx context.Context) error {
	return h.ask(ctx, benchReset, func(io.Reader) error { return nil })
}

// count returns how many deliveries have arrived, copies not counted.
func (h *benchHook) count(ctx context.Context) (n int64, err error) {
	err = h.ask(ctx, benchCount, func(r io.Reader) error {
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		n, err = strconv.ParseInt(string(text), 10, 64)
		return err
	})
	return n, err
}

// await waits until n deliveries have arrived, or until its patience is over:
// what has not come by then is found missing later.
func (h *benchHook) await(ctx context.Context, n int64, patience time.Duration) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		got, err := h.count(ctx)
		if err != nil || got >= n {
			return err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// arrivals returns everything that has arrived.
func (h *benchHook) arrivals(ctx context.Context) (map[arrivalKey]arrival, error) {
	out := map[arrivalKey]arrival{}
	err := h.ask(ctx, benchArrivals, func(r io.Reader) error {
		in := bufio.NewReaderSize(r, 64<<10)
		var buf [arrivalSize]byte
		for {
			_, err := io.ReadFull(in, buf[:])
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			out[arrivalKey{event: [16]byte(buf[:16]), webhook: [16]byte(buf[16:32])}] = arrival{
				first: int64(binary.LittleEndian.Uint64(buf[32:])), copies: binary.LittleEndian.Uint32(buf[40:]),
			}
		}
	})
	return out, err
}

// ask calls a control route.
func (h *benchHook) ask(ctx context.Context, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+path, http.NoBody)
	if err != nil {
		return err
	}
	res, err := h.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	defer res.Body.Close()
	if err := read(res.Body); err != nil {
		return fmt.Errorf("read the receiver's answer: %w", err)
	}
	return nil
}
