package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ticketwire/ticketwire/client"
)

func ExampleClient_Ticket() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/tickets/e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5" {
			fmt.Fprint(w, `{"data":{"ticket_id":"e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5","ticket_number":"TKT-1042"}}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":{"code":"NOT_FOUND","message":"ticket not found"}}`)
	}))
	defer server.Close()

	c, err := client.New(server.URL, "my API key", client.WithHTTPClient(server.Client()))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, id := range []string{"e2a94b77-6f10-4c58-8d3e-90b1c2d3e4f5", "00000000-0000-4000-8000-000000000000"} {
		t, err := c.Ticket(context.Background(), id)
		var answer *client.Error
		switch {
		case errors.As(err, &answer) && answer.Status == http.StatusNotFound:
			fmt.Println("gone:", answer.Message)
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(*t.TicketNumber)
		}
	}
	// Output:
	// TKT-1042
	// gone: ticket not found
}
