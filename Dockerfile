# The sidecar for production: it is given Redis and PostgreSQL, so nothing embedded is installed.
FROM python:3.13-slim

RUN useradd --system --create-home --uid 10001 partywall
WORKDIR /app

COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY sdk sdk
COPY workers workers
COPY service service
RUN pip install --no-cache-dir --constraint constraints.txt '.[service,workers]'
COPY quotas.toml ./

USER partywall
ENV PARTYWALL_HOST=0.0.0.0 \
    PARTYWALL_PORT=8080 \
    PARTYWALL_CONFIG=/app/quotas.toml \
    PARTYWALL_DATA_DIR=/home/partywall/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PARTYWALL_PORT'] + '/readyz', timeout=2)"]

# Not by a shell: SIGTERM must reach the sidecar, which then finishes its requests.
ENTRYPOINT ["partywall"]
CMD ["serve"]
