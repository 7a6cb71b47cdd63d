package travel_test

import (
	"testing"

	"github.com/tenure-faas/tenure/examples/travel"
	"github.com/tenure-faas/tenure/sdk/go/tenuretest"
)

// reserve runs the workflow; the parallel steps in one of their two orders.
func reserve(host *tenuretest.Host, input string, seatFirst bool) (string, error) {
	steps := []tenuretest.Step{
		{Name: "room", Handler: travel.Room}, {Name: "seat", Handler: travel.Seat}, {Name: "order", Handler: travel.Order},
	}
	if seatFirst {
		steps[0], steps[1] = steps[1], steps[0]
	}
	outputs, err := host.Workflow(steps, input)
	return outputs["order"], err
}

func TestReserve(t *testing.T) {
	const id = "00000000000000000000000001"
	for _, tt := range []struct {
		name, rooms, seats, input, output, order, reason string
	}{
		{name: "takes both", rooms: "2", seats: "1", input: `{"hotel":"ritz","flight":"lh1","user":"ann"}`,
			output: `{"order":"` + id + `","hotel":"ritz","flight":"lh1","user":"ann","rooms_left":1,"seats_left":0}`,
			order:  `{"order":"` + id + `","hotel":"ritz","flight":"lh1","user":"ann"}`},
		{name: "without a user", rooms: "1", seats: "1", input: `{"hotel":"ritz","flight":"lh1"}`,
			output: `{"order":"` + id + `","hotel":"ritz","flight":"lh1","rooms_left":0,"seats_left":0}`,
			order:  `{"order":"` + id + `","hotel":"ritz","flight":"lh1"}`},
		{name: "no seat", rooms: "2", seats: "0", input: `{"hotel":"ritz","flight":"lh1"}`, reason: "sold out"},
		{name: "no room", rooms: "0", seats: "2", input: `{"hotel":"ritz","flight":"lh1"}`, reason: "sold out"},
		{name: "unknown flight", rooms: "2", seats: "2", input: `{"hotel":"ritz","flight":"x"}`, reason: "sold out"},
		{name: "no hotel", rooms: "2", seats: "2", input: `{"flight":"lh1"}`, reason: "hotel and flight must be names"},
	} {
		for _, seatFirst := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				host := tenuretest.New()
				host.Set("hotels", "ritz", tt.rooms)
				host.Set("flights", "lh1", tt.seats)
				output, err := reserve(host, tt.input, seatFirst)
				order, _ := host.Value("orders", id)
				if order != tt.order {
					t.Errorf("order %s, want %s", order, tt.order)
				}
				if tt.reason == "" {
					if err != nil || output != tt.output {
						t.Errorf("got %s, %v, want %s", output, err, tt.output)
					}
					return
				}
				rooms, _ := host.Value("hotels", "ritz")
				seats, _ := host.Value("flights", "lh1")
				if err == nil || err.Error() != tt.reason || rooms != tt.rooms || seats != tt.seats {
					t.Errorf("error %v, %s rooms, %s seats", err, rooms, seats)
				}
			})
		}
	}
}

func TestSearch(t *testing.T) {
	host := tenuretest.New()
	host.Set("hotels", "ritz", "2")
	if out, err := host.Invoke(travel.Search, `{"hotel":"ritz","flight":"lh1"}`); err != nil || out != `{"rooms":2,"seats":0}` {
		t.Errorf("got %s, %v", out, err)
	}
	for _, input := range []string{`{}`, `{"hotel":"ritz"}`, `{"hotel":1,"flight":"lh1"}`} {
		if _, err := host.Invoke(travel.Search, input); err == nil {
			t.Errorf("%s was accepted", input)
		}
	}
}
