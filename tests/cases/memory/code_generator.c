/* A code generator under pressure: functions are written, made executable and called again and again, in pages that are RWX, or
 * written as RW and then switched to RX, or write-only-by-a-key where the processor has protection keys. */
#include "../case.h"

#define FUNCTIONS 4096

/* mov eax, imm32; ret */
static void emit(uint8_t *at, uint32_t value) {
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static size_t call_all(uint8_t *code, size_t stride) {
    size_t failed = 0;
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        uint32_t (*function)(void);
        uint8_t *at = code + i * stride;
        memcpy(&function, &at, sizeof function);
        failed += function() != i * 7;
    }
    return failed;
}

int main(int argc, char **argv) {
    const char *how = mode(argc, argv);
    uint8_t *code = anonymous(FUNCTIONS * PAGE);
    if (is(how, "rwx") && mprotect(code, FUNCTIONS * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
        unable("mprotect");
    for (int round = 0; round < 3; round++) {
        if (!is(how, "rwx") && mprotect(code, FUNCTIONS * PAGE, PROT_READ | PROT_WRITE) != 0)
            unable("mprotect");
        for (uint32_t i = 0; i < FUNCTIONS; i++)
            emit(code + i * PAGE, i * 7);
        if (is(how, "rx") && mprotect(code, FUNCTIONS * PAGE, PROT_READ | PROT_EXEC) != 0)
            unable("mprotect");
        if (is(how, "x") && mprotect(code, FUNCTIONS * PAGE, PROT_EXEC) != 0)
            unable("mprotect");
        evict(code, FUNCTIONS);
        expect("functions that return the wrong value", (long)call_all(code, PAGE), 0);
        pid_t child = fork();
        if (child == 0)
            _exit(call_all(code, PAGE) != 0);
        expect_child("child", child, 0);
    }
    return verdict();
}
