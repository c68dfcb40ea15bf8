/* A plugin for qemu-aarch64 (QEMU 6 to 8): how often each block of instructions was executed.
 *
 *   gcc -O2 -shared -fPIC -o count.so count.c
 *   qemu-aarch64 -plugin ./count.so,out=FILE[,everything=on] PROGRAM ...
 *
 * At exit FILE gets a line for each translated block of code that lies in no file (in memory
 * that the program filled itself, which is where IREE puts compiled code), or for each block of
 * everything: the number of executions, then the instructions as eight hexadecimal digits each.
 *
 * What qemu-plugin.h declares is declared here, since Debian's qemu-user comes without it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
enum { ADD_U64 = 0 };

EXPORT int qemu_plugin_version = 1;

struct block {
    struct block *next;
    uint64_t executions;
    size_t size;
    uint32_t instructions[];
};

static struct block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *out;
static bool everything;

/* Whether the memory at an address was mapped from a file. */
static bool in_a_file(const void *address)
{
    bool found = false;
    char line[1024];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2 &&
            (uintptr_t)address >= start && (uintptr_t)address < end) {
            found = strchr(line, '/') != NULL;
            break;
        }
    }
    if (maps)
        fclose(maps);
    return found;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    if (!everything &&
        in_a_file(qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0))))
        return;
    size_t size = qemu_plugin_tb_n_insns(tb);
    struct block *block = calloc(1, sizeof *block + size * sizeof(uint32_t));
    if (!block)
        abort();
    block->size = size;
    for (size_t i = 0; i < size; i++) {
        const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        memcpy(&block->instructions[i], qemu_plugin_insn_data(insn), sizeof(uint32_t));
    }
    pthread_mutex_lock(&lock);
    block->next = blocks;
    blocks = block;
    pthread_mutex_unlock(&lock);
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &block->executions, 1);
}

static void finished(plugin_id id, void *data)
{
    (void)id, (void)data;
    for (const struct block *block = blocks; block; block = block->next) {
        fprintf(out, "%" PRIu64 " ", block->executions);
        for (size_t i = 0; i < block->size; i++)
            fprintf(out, "%08" PRIx32, block->instructions[i]);
        fputc('\n', out);
    }
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 1; i < argc; i++)
        everything = everything || !strcmp(argv[i], "everything=on");
    if (argc < 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "w"))) {
        fprintf(stderr, "count: needs out=FILE, a file that can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
