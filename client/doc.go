// Package client is the typed client of the ticket and webhook API: tickets,
// webhooks, deliveries, API keys and the event feed. It speaks the wire
// contract, and so it works against AlgaPSA as well, except for the event feed
// and the API keys, which only Ticketwire has in this form.
//
//	c, err := client.New("https://desk.example.com", os.Getenv("API_KEY"))
//	if err != nil {
//		return err
//	}
//	for t, err := range c.Tickets(ctx, client.TicketFilter{UpdatedFrom: since, Sort: "updated_at", Order: "asc"}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(t.TicketID, *t.Title)
//	}
//
// What it takes off the caller: paging, the wait that a 429 or 503 asks for, a
// time limit per request, and bounded answers. It never sends the API key to
// another address: redirects are not followed.
//
// What it leaves to the caller: the budget of calls over all clients of one
// key, and receiving webhooks, which is the webhook package's work. The package
// uses the standard library only.
package client
