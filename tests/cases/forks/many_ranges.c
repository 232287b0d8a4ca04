/* Many ranges that are not inherited (one for each buffer, as RDMA does), and a fork. argv[1]: how many. */
#include "../case.h"

int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 20000;
    uint8_t *memory = anonymous(2 * count * PAGE), *data = anonymous(100 * MIB);
    fill(data, 100 * PAGES_OF_MIB, 3);
    double start = now();
    for (size_t i = 0; i < count; i++) {
        if (madvise(memory + 2 * i * PAGE, PAGE, MADV_DONTFORK) != 0)
            unable("madvise");
    }
    took("advice", start);
    start = now();
    pid_t child = fork();
    if (child == 0)
        _exit(wrong(data, 1000, 3) == 0 ? 3 : 4);
    took("fork", start);
    expect_child("child", child, 3);
    expect("wrong pages", (long)wrong(data, 100 * PAGES_OF_MIB, 3), 0);
    return verdict();
}
