package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// benchShares is how many webhooks share the tickets in the nodes figure. A webhook
// is sent by one node, so there are several for each.
const benchShares = 12

// benchAcquaintance is how long nodes need to know of each other and to send for
// their webhooks.
const benchAcquaintance = 6 * time.Second

// nodes measures processes of the service on one PostgreSQL. The change is made over
// HTTP, of every ticket through every node, as behind a load balancer that does not
// know who was there before.
func (b *bench) nodes(ctx context.Context) (err error) {
	s, err := b.open(ctx, benchSetting{tickets: benchTickets})
	if err != nil {
		return err
	}
	defer closeScene(s, &err)
	shares := make([][]string, benchShares)
	for i, id := range s.tickets {
		shares[i%benchShares] = append(shares[i%benchShares], id)
	}
	if err := s.subscribeMany(ctx, benchShares, func(i int) []string { return shares[i] }); err != nil {
		return err
	}
	l := benchLoad{name: "nodes", writers: 32, webhooks: 1, length: b.length}
	nodes, err := s.startNodes(ctx, b.cmd.Nodes)
	defer endNodes(nodes)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		l.nodes = append(l.nodes, n.cmd.Process.Pid)
	}
	l.change = func(ctx context.Context, n int) error {
		ticket := s.tickets[n/len(nodes)%len(s.tickets)]
		return s.putTo(ctx, nodes[n%len(nodes)].url, ticket, fmt.Sprintf("Label printer is offline, note %d", s.titles.Add(1)))
	}
	b.show.note("the nodes get to know each other")
	if len(nodes) > 1 {
		if err := pause(ctx, benchAcquaintance); err != nil {
			return err
		}
	}
	// The first events read the subscriptions.
	warm := benchShares * len(nodes)
	if err := inParallel(ctx, len(nodes), warm, l.change); err != nil {
		return err
	}
	if err := s.settle(ctx, int64(warm)); err != nil {
		return err
	}
	if err := errors.Join(s.mark(ctx), b.hook.reset(ctx)); err != nil {
		return err
	}
	o, err := s.run(ctx, l)
	if err != nil {
		return err
	}
	b.report.Nodes, b.report.NodesPerS = len(nodes), new(o.perSecond())
	if o.nodes > 0 {
		b.report.NodesCPUPer1000 = new(o.perThousand(o.nodes))
	}
	if o.database > 0 {
		b.report.NodesDatabaseCPUPer1000 = new(o.perThousand(o.database))
	}
	return nil
}

// benchNode is a process of the service.
type benchNode struct {
	cmd *exec.Cmd
	url string
}

// startNodes starts processes of the service on the scene's database. Those that it
// returns run, also when there is an error.
func (s *benchScene) startNodes(ctx context.Context, n int) (nodes []benchNode, err error) {
	for range n {
		cmd, err := benchChild(ctx, "serve", "--data", s.dir, "--listen", "127.0.0.1:0",
			"--allow-targets", "127.0.0.0/8", "--retry-schedule", "1s,1s,1s,1s,1s", "--log-level", "error")
		if err != nil {
			return nodes, err
		}
		cmd.Env = append(cmd.Env, "TICKETWIRE_DATABASE_URL="+s.server.URL) // others see arguments
		url, err := startChild(cmd)
		if err != nil {
			return nodes, fmt.Errorf("start a node: %w", err)
		}
		nodes = append(nodes, benchNode{cmd, url})
	}
	return nodes, nil
}

// endNodes ends processes that have nothing left which anybody wants.
func endNodes(nodes []benchNode) {
	for _, n := range nodes {
		_ = errors.Join(n.cmd.Process.Kill(), n.cmd.Wait()) // the second says that it was killed
	}
}
