/** An environment variable that must be set. Read at a request, not at the build: the build needs no secret. */
export function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}`);
  return value;
}
