import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A heap of linked objects of which a part becomes garbage all the time; the sums depend on every live object. */
public final class Heap {
    private record Node(long value, String text, Node next) {}

    private static Node chain(long seed, int length) {
        Node head = null;
        long state = seed;
        for (int i = 0; i < length; i++) {
            state = state * 6364136223846793005L + 1442695040888963407L;
            head = new Node(state, "node " + (state >>> 40), head);
        }
        return head;
    }

    private static long sum(Node head) {
        long sum = 0;
        for (Node node = head; node != null; node = node.next()) {
            sum = sum * 31 + node.value() + node.text().hashCode();
        }
        return sum;
    }

    public static void main(String[] arguments) throws InterruptedException {
        Map<Integer, Node> chains = new HashMap<>();
        for (int i = 0; i < 500; i++) {
            chains.put(i, chain(i, 2000));
        }
        for (int turn = 0; turn < 4; turn++) {
            for (int i = turn; i < 500; i += 5) {
                chains.put(i, chain(i * 1000L + turn, 2000));
            }
        }
        long[] sums = new long[2];
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < 2; t++) {
            int half = t;
            Thread thread = new Thread(() -> {
                long total = 0;
                for (int i = half; i < 500; i += 2) {
                    total = total * 17 + sum(chains.get(i));
                }
                sums[half] = total;
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println(Long.toHexString(sums[0]) + " " + Long.toHexString(sums[1]));
    }
}
