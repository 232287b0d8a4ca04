// Goroutines that build and drop trees and maps under the pressure of the garbage collector; the sums depend on every object.
package main

import (
	"fmt"
	"runtime"
	"sync"
)

type tree struct {
	left, right *tree
	value       uint64
	text        string
}

func build(depth int, seed uint64) *tree {
	node := &tree{value: seed*6364136223846793005 + 1442695040888963407, text: fmt.Sprint("node ", seed%1000003)}
	if depth > 0 {
		node.left = build(depth-1, node.value)
		node.right = build(depth-1, node.value+1)
	}
	return node
}

func (node *tree) sum() uint64 {
	if node == nil {
		return 1
	}
	total := node.value
	for _, letter := range node.text {
		total = total*31 + uint64(letter)
	}
	return total + node.left.sum()*3 + node.right.sum()*5
}

func main() {
	const workers = 8
	sums := make([]uint64, workers)
	var group sync.WaitGroup
	for w := 0; w < workers; w++ {
		group.Add(1)
		go func(w int) {
			defer group.Done()
			kept := build(16, uint64(w))
			for turn := 0; turn < 40; turn++ {
				table := make(map[uint64]*tree)
				for i := 0; i < 3000; i++ {
					table[uint64(i)*2654435761%4294967296] = &tree{value: uint64(i * turn)}
				}
				for key, node := range table {
					sums[w] += key ^ node.value
				}
				sums[w] += build(10, uint64(turn)).sum()
				runtime.Gosched()
			}
			sums[w] += kept.sum()
		}(w)
	}
	group.Wait()
	for w, sum := range sums {
		fmt.Printf("%d %016x\n", w, sum)
	}
}
