/** The built window under an address of its own: `fastmqa://app/`. Nothing but the files of the build can be asked for. */
import { protocol, type Session } from 'electron';
import { type Asset, pageOf } from '../assets.ts';
import { securityHeaders } from '../headers.ts';

const scheme = 'fastmqa';
export const appUrl = `${scheme}://app/`;

export const isAppUrl = (url: string): boolean => url === appUrl || url.startsWith(`${appUrl}#`);
const isAppResource = (url: string): boolean => url.startsWith(appUrl);

/** Before the app is ready. Standard and secure, so that `'self'` means this address and storage belongs to it. */
export const registerAppScheme = (): void =>
  protocol.registerSchemesAsPrivileged([{ scheme, privileges: { standard: true, secure: true } }]);

/** The page gets itself and its own files, and no permission but to copy text. */
export function setUpSession(session: Session, assets: ReadonlyMap<string, Asset>): void {
  session.protocol.handle(scheme, (request) => respond(request, assets));
  session.webRequest.onBeforeRequest(({ url }, decide) => {
    decide({ cancel: !(isAppResource(url) || /^(data|blob|devtools):/.test(url)) });
  });
  session.setPermissionRequestHandler((contents, permission, decide, details) => {
    const isOwn = details.isMainFrame && contents !== null && isAppUrl(contents.getURL());
    decide(isOwn && permission === 'clipboard-sanitized-write');
  });
  session.setPermissionCheckHandler((contents, permission) => {
    return contents !== null && isAppUrl(contents.getURL()) && permission === 'clipboard-sanitized-write';
  });
  session.setDevicePermissionHandler(() => false);
}

function respond({ method, url }: Request, assets: ReadonlyMap<string, Asset>): Response {
  if (method !== 'GET' || !isAppResource(url)) return new Response(null, { status: 400, headers: securityHeaders() });
  const { pathname } = new URL(url);
  if (pathname === '/') {
    const { html, nonce } = pageOf(assets);
    return new Response(html, { headers: { ...securityHeaders(nonce), 'Content-Type': 'text/html; charset=utf-8' } });
  }
  const asset = pathname === '/index.html' ? undefined : assets.get(pathname);
  if (!asset) return new Response(null, { status: 404, headers: securityHeaders() });
  return new Response(asset.body, { headers: { ...securityHeaders(), 'Content-Type': asset.type } });
}
