// Command twice registers two handlers under one name, which is refused.
package main

import "github.com/tenure-faas/tenure/sdk/go"

func init() {
	for range 2 {
		tenure.Handle("a", func(*tenure.Context) ([]byte, error) { return nil, nil })
	}
}

func main() {}
