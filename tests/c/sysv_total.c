/* What a C program sees of a segment, for comparison: sysv_total ID prints size, mode, attaches and the first int;
 * then it adds to the int. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/shm.h>

int main(int argc, char **argv)
{
    struct shmid_ds ds;
    int id = argc > 1 ? atoi(argv[1]) : -1;
    int add = argc > 2 ? atoi(argv[2]) : 0;
    int *memory = shmat(id, NULL, 0);
    if (memory == (void *)-1 || shmctl(id, IPC_STAT, &ds) < 0) {
        perror("shmat or shmctl");
        return 1;
    }
    printf("%zu %o %ld %d\n", ds.shm_segsz, ds.shm_perm.mode & 0777, (long)ds.shm_nattch, *memory);
    *memory += add;
    return shmdt(memory) < 0;
}
