package serve

import "testing"

func TestReachable(t *testing.T) {
	for _, test := range []struct{ address, want string }{
		{"http://127.0.0.1:8088", "http://127.0.0.1:8088"},
		{"http://0.0.0.0:8088", "http://127.0.0.1:8088"},
		{"http://[::]:8088", "http://127.0.0.1:8088"},
		{"http://[::1]:8088", "http://[::1]:8088"},
		{"http://192.168.1.7:80", "http://192.168.1.7:80"},
		{"http://tenure.example:80", "http://tenure.example:80"},
	} {
		if got := Reachable(test.address); got != test.want {
			t.Errorf("Reachable(%q) = %q, want %q", test.address, got, test.want)
		}
	}
}
