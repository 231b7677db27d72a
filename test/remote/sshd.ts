/** An sshd of the test's own on the loopback: own keys, own config, own known hosts; the user's stay as they are. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import os from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../fleet/redis.ts';

export const sshdProgram = ['/usr/sbin/sshd', '/usr/bin/sshd', '/usr/local/sbin/sshd'].find((path) => existsSync(path));

export interface SshServer {
  /** For `ssh -F`: it knows the server as `server`, and as `stranger` with the key of another. */
  readonly config: string;
  end(): void;
}

export async function startSshd(folder: string): Promise<SshServer> {
  const file = (name: string): string => join(folder, name);
  const { username, uid } = os.userInfo();
  for (const key of ['host_key', 'other_key', 'user_key'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file(key)]);
  if (uid === 0) mkdirSync('/run/sshd', { recursive: true }); // where sshd, as root, sets its children apart
  const port = await freePort();
  writeFileSync(file('authorized_keys'), readFileSync(file('user_key.pub')), { mode: 0o600 });
  const publicKey = (name: string): string => readFileSync(file(`${name}.pub`), 'utf8');
  writeFileSync(file('known_hosts'), `[127.0.0.1]:${port} ${publicKey('host_key')}stranger ${publicKey('other_key')}`);
  writeFileSync(
    file('sshd_config'),
    `ListenAddress 127.0.0.1
Port ${port}
HostKey ${file('host_key')}
AuthorizedKeysFile ${file('authorized_keys')}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
PidFile none
`,
  );
  const common = `HostName 127.0.0.1
Port ${port}
User ${username}
IdentityFile ${file('user_key')}
IdentitiesOnly yes
UserKnownHostsFile ${file('known_hosts')}
StrictHostKeyChecking yes
LogLevel ERROR
`;
  writeFileSync(file('ssh_config'), `Host server\n${common}Host stranger\nHostKeyAlias stranger\n${common}`);
  const server: ChildProcess = spawn(sshdProgram as string, ['-D', '-e', '-f', file('sshd_config')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  server.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  while (!(await answers(port))) {
    if (server.exitCode !== null) throw new Error(`sshd ended: ${said}`);
    await sleep(50);
  }
  return {
    config: file('ssh_config'),
    end: () => {
      server.kill('SIGTERM');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const say = (yes: boolean) => () => {
      socket.destroy();
      resolve(yes);
    };
    socket.once('connect', say(true)).once('error', say(false));
  });
}
