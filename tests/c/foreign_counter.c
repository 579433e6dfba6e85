/* A program that knows shm_open, a process-shared mutex and an int behind it, and nothing else.
 *
 *   foreign_counter create NAME robust|plain  makes the memory, adds when told, removes the name at the end
 *   foreign_counter open NAME                 opens what somebody made, adds when told
 *
 * It reads commands, one to a line: "add N" adds 1 N times, "get" prints the count, "hold" takes the lock for good,
 * "quit". It answers each with one line. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct shared {
    pthread_mutex_t mutex;
    int count;
};

static int lock(struct shared *shared)
{
    int answer = pthread_mutex_lock(&shared->mutex);
    if (answer == EOWNERDEAD) {
        printf("owner died\n");
        pthread_mutex_consistent(&shared->mutex);
        return 0;
    }
    if (answer != 0)
        printf("error %s\n", strerror(answer));
    return answer;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    int create = strcmp(argv[1], "create") == 0;
    int fd = shm_open(argv[2], create ? O_CREAT | O_EXCL | O_RDWR : O_RDWR, 0600);
    if (fd < 0 || (create && ftruncate(fd, sizeof(struct shared)) < 0)) {
        perror("shm_open or ftruncate");
        return 1;
    }
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    close(fd);
    if (create) {
        pthread_mutexattr_t attr;
        pthread_mutexattr_init(&attr);
        pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
        if (argc > 3 && strcmp(argv[3], "robust") == 0)
            pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&shared->mutex, &attr);
        shared->count = 0;
    }
    printf("ready %zu\n", offsetof(struct shared, count));
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        int n;
        if (sscanf(line, "add %d", &n) == 1) {
            for (int i = 0; i < n; i++) {
                if (lock(shared) != 0)
                    break;
                shared->count++;
                pthread_mutex_unlock(&shared->mutex);
            }
            printf("added\n");
        } else if (strncmp(line, "get", 3) == 0) {
            if (lock(shared) == 0) {
                printf("%d\n", shared->count);
                pthread_mutex_unlock(&shared->mutex);
            }
        } else if (strncmp(line, "hold", 4) == 0) {
            if (lock(shared) == 0)
                printf("held\n");
        } else {
            break;
        }
        fflush(stdout);
    }
    if (create)
        shm_unlink(argv[2]);
    return 0;
}
